"""The lake in Delta Lake tables of Parquet files (delta-rs, pyarrow)."""

from obligor.stores.delta.table import DeltaLake, DeltaTableStore

__all__ = ["DeltaLake", "DeltaTableStore"]
