"""Training of sequence models, the only place where torch is imported: encoders, objectives, heads, loop, export."""

try:
    import torch as _torch  # noqa: F401 - says what is missing before anything else fails on it
except ImportError as error:  # pragma: no cover - the environment of the tests has it
    raise ImportError("training sequence models needs torch: pip install 'obligor[sequences]'") from error

from obligor.sequences.lived import DEFAULTED, OPEN, PREPAID, Lived, pd_by
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.estimator import SequenceClassifier
from obligor.sequences.training.heads import Head
from obligor.sequences.training.pretraining import Objectives
from obligor.sequences.training.trainer import TrainerConfig

__all__ = [
    "DEFAULTED", "OPEN", "PREPAID", "Head", "Lived", "Objectives", "SequenceClassifier",
    "SequenceEncoder", "TrainerConfig", "pd_by",
]  # fmt: skip
