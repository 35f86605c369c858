"""Tasks on a Spark cluster, and events out of Spark (the extra `obligor[spark]`)."""

from obligor.engines.spark.engine import SparkEngine
from obligor.engines.spark.intake import parts_of, write_parts

__all__ = ["SparkEngine", "parts_of", "write_parts"]
