"""Sequences: every event of an entity, in order, as a model reads it.

    tokens   what a row becomes: codes and parts, by a tokenizer that was fitted once and is frozen
    slices   which rows a question sees, as ranges
    dataset  both on disk, and batches out of it
    encoder  a trained encoder in service: states that follow event by event, readouts, log-odds

What is trained with torch lies in `training`, which alone imports it.
"""

from obligor.sequences.head import Hazard, Loss, SequenceHead
from obligor.sequences.model import SequenceModel

__all__ = ["Hazard", "Loss", "SequenceHead", "SequenceModel"]
