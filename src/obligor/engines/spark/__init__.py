"""Tasks on a Spark cluster, and events out of Spark (the extra `obligor[spark]`)."""

from obligor.engines.spark.engine import SparkEngine

__all__ = ["SparkEngine"]
