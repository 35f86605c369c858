"""Tasks on a Ray cluster (the extra `obligor[ray]`)."""

from obligor.engines.ray.engine import RayEngine

__all__ = ["RayEngine"]
