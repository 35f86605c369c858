"""From a definition and a dataset of everyone to an encoder's file: pretraining as `SequenceModel` says.

What is written is a pure function of the events known at the cut-off, the definition and the number of threads (on
CPU): weights leave in one canonical order, and entities come by their keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obligor.errors import BadInput, Problem
from obligor.sequences import weights
from obligor.sequences.dataset import Dataset
from obligor.sequences.entities import Entities, by_key, held_back
from obligor.sequences.model import SequenceModel
from obligor.sequences.training.crew import Crew
from obligor.sequences.training.estimator import SequenceClassifier
from obligor.sequences.training.export import exported_weights
from obligor.sequences.training.pretraining import Objectives, identifying
from obligor.sequences.training.trainer import Progress, TrainerConfig

__all__ = ["Learnt", "pretrained"]


@dataclass(frozen=True)
class Learnt:
    """An encoder's file, and how the learning went."""

    weights: bytes
    record: dict[str, Any]


def pretrained(
    model: SequenceModel,
    dataset: Dataset,
    work: Path,
    *,
    threads: int = 1,
    quiet: bool = True,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> Learnt:
    """Learn an encoder from everyone in a dataset; what a run left in `work` before it was broken off goes on.

    Fields that the tokenizer calls slow, and those that are found to name who it is, are kept out. BadInput where
    there is nothing to learn from.
    """
    places = by_key(dataset)
    if not len(places):
        raise BadInput(
            "nobody has an event that was known by the cut-off: nothing to learn from (history that was loaded without "
            "--declared counts as known since it was loaded)"
        )
    source = Entities(dataset, tokens_max=model.tokens_max, places=places)
    kept_out = identifying(source)
    held = held_back(dataset, model.held_share, model.seed)
    if held[places].all():
        message = f"expected entities to learn from, got all {len(places)} held back to stop by"
        raise BadInput(Problem("SequenceModel.held_share", f"{message}: load more history, or hold back fewer"))
    estimator = SequenceClassifier(
        kind=model.kind, width=model.width, hidden=model.hidden, layers=model.layers, attention_heads=model.heads,
        tail=model.tail, fading_days=model.fading_days, objectives=_objectives(model), blind=kept_out,
        checkpoints=work, seed=model.seed, quiet=quiet, progress=progress, crew=crew,
        pretrainer=TrainerConfig(
            epochs=model.epochs, steps_min=model.steps_min, rate=model.rate, patience=model.patience, seed=model.seed,
            threads=threads, precision=model.precision,
        ),
    )  # fmt: skip
    estimator.pretrain(source, held=held)
    result = estimator.pretraining_
    record = {
        "entities": len(places), "held": int(held[places].sum()), "events": int(dataset.columns.length[places].sum()),
        "kept_out": [dataset.tokenizer.names[field] for field in kept_out], "steps": result.steps,
        "best": result.best, "best_step": result.best_step, "curve": result.curve,
    }  # fmt: skip
    return Learnt(weights.dump(estimator.encoder_.config, exported_weights(estimator.encoder_)), record)


def _objectives(model: SequenceModel) -> Objectives:
    return Objectives(
        contrastive=model.contrastive, next_event=model.next_event, masked=model.masked,
        times_ahead=model.times_ahead, slices=model.slices, slice_min=model.slice_min, slice_max=model.slice_max,
    )  # fmt: skip
