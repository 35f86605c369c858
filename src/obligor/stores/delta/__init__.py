"""The lake in Delta Lake tables of Parquet files (delta-rs, pyarrow), on disk or in object storage."""

from obligor.stores.delta.places import Place, S3Options, place_of
from obligor.stores.delta.table import DeltaLake, DeltaTableStore

__all__ = ["DeltaLake", "DeltaTableStore", "Place", "S3Options", "place_of"]
