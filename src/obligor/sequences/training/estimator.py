"""A classifier of sequences in the scikit-learn manner: fit, predict_proba, embed.

    model = SequenceClassifier().fit(source, y)      # y (n,) of 0, 1 and NaN (not known), by question
    model.predict_proba(later)                       # (n, 2)
    model.embed(later)                               # (n, 5 hidden + 2), and what fades

Fitting pretrains the encoder on all sequences of the source, labelled or not, then fine-tunes it with its heads; a part
of the questions, by group, is held back to stop by. The defaults are meant to be left alone: on small data there are
more epochs, on large data one look lies within an epoch.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from obligor.errors import BadInput, ObligorError, Problem, did_you_mean
from obligor.sequences.batches import Batch, BatchSource, Branched, QuestionSource
from obligor.sequences.lived import Lived, pd_by
from obligor.sequences.training.crew import Crew, Portion, Together
from obligor.sequences.training.display import watched
from obligor.sequences.training.embedding import WAVES
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.export import export
from obligor.sequences.training.finetuning import Finetuning, embed, log_odds
from obligor.sequences.training.heads import Bottom, Head, Heads, Targets, check_targets
from obligor.sequences.training.pretraining import Objectives, Pretraining, identifying
from obligor.sequences.training.trainer import Progress, Result, Step, TrainerConfig, threads, train
from obligor.sequences.weights import Config, Kind, readout_size, waves_of

__all__ = ["SequenceClassifier"]

Floats = NDArray[np.float64]
Reads = Literal["last", "moments", "all"]


@dataclass(eq=False)
class SequenceClassifier:
    """Predicts outcomes from sequences of events; several at once with several heads."""

    kind: Kind = "gru"
    width: int = 32  # of a token vector
    hidden: int = 64  # of a hidden vector
    layers: int = 1  # of a Transformer
    attention_heads: int = 4  # of linear attention and of a Transformer
    tail: int = 256  # events that a Transformer sees
    heads: tuple[Head, ...] = (Head("default"),)
    bottom: Bottom = "own"  # of the heads
    units: int = 0  # of a head's hidden layer; 0: it has none
    fading_days: tuple[int, ...] = (30, 90)  # days over each of which a sum of hidden vectors fades
    reads: Reads = "moments"  # beside what fades: last vector, mean and spread too, or all
    dropout: float = 0.3  # of a readout's coordinates, before the heads
    blind: tuple[int, ...] | None = None  # fields that are not read; None: those that say who it is, known or found
    pretrained: bool = True  # whether fit pretrains an encoder that has not been
    frozen: bool = False  # whether fit leaves the encoder as pretraining made it
    objectives: Objectives = field(default_factory=Objectives)
    pretrainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(epochs=4, rate=6e-3))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(epochs=4, rate=4e-3))
    held_share: float = 0.1  # of the questions, to stop by
    checkpoints: Path | None = None  # folder to go on from after an interruption
    seed: int = 0
    quiet: bool = False
    progress: Progress | None = None  # called after each step too: to record a run, or to stop it by an exception
    crew: Crew | None = None  # processes that learn one model, of which this is one

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name, as scikit-learn asks for them."""
        return {known.name: getattr(self, known.name) for known in fields(self)}

    def set_params(self, **given: Any) -> SequenceClassifier:
        """Set parameters by name."""
        unknown = sorted(set(given) - set(self.get_params()))
        if unknown:
            raise BadInput([Problem(f"$.{name}", "no such parameter") for name in unknown])
        for name, value in given.items():
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn asks for first, which is there whenever it asks: a classifier."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags("classifier", TargetTags(required=True), None, ClassifierTags(), None, input_tags=InputTags())

    @property
    def classes_(self) -> NDArray[np.int64]:
        """What the columns of `predict_proba` are the chances of."""
        return np.array([0, 1])

    def predict(self, source: QuestionSource) -> NDArray[np.int64]:
        """Return the likelier of 0 and 1 by the first head, (q,)."""
        return (self.predict_proba(source)[:, 1] > 0.5).astype(np.int64)

    def pretrain(self, source: BatchSource[Batch], *, held: NDArray[np.bool_] | None = None) -> SequenceClassifier:
        """Learn the encoder from sequences alone; `held` (by question) are kept back to stop by.

        Every `fit` from then on begins with this encoder.
        """
        self.encoder_ = self.start_ = self._pretrained(source, held)
        return self

    def _pretrained(self, source: BatchSource[Batch], held: NDArray[np.bool_] | None) -> SequenceEncoder:
        wanted = self.objectives
        # What slices of one entity have in common is how often things happen, not what happened last.
        encoder = self._encoder(source, wanted.slice_max if wanted.contrastive else 0)
        task = Pretraining(encoder, wanted, source, self.seed, held)
        identity = {
            "encoder": encoder.config.to_json(),
            "blind": encoder.blind,
            "objectives": asdict(wanted),
            "held": _digest({"held": held}),
            "start": _digest(_weights(task)),
        }
        self.pretraining_ = self._train(task, source, self.pretrainer, "pretraining", identity)
        return encoder

    def fit(
        self,
        source: QuestionSource,
        y: NDArray[np.float64] | Targets,
        *,
        groups: NDArray[Any] | None = None,
        held: NDArray[np.bool_] | None = None,
        unlabelled: BatchSource[Batch] | None = None,
        offset: NDArray[np.float64] | None = None,
    ) -> SequenceClassifier:
        """Learn from outcomes by question: an array for a single head, or one target for each head by its name.

        Questions are held back to stop by: those of `held`, else a share drawn by group (such as the consumer). It
        begins with the encoder that `pretrain` left; without one it pretrains first, on `unlabelled`, else on the
        questions themselves. What an earlier `fit` has learnt is forgotten. BadInput names what does not fit.

        `offset` are log-odds by question that are known already, such as those of trees that have not seen its outcome:
        the first head learns what they lack, and its log-odds are to be added to them.
        """
        if problems := list(self._problems()):
            raise BadInput(problems)
        targets: Targets = y if isinstance(y, Mapping) else {self.heads[0].name: np.asarray(y, np.float64)}
        check_targets(self.heads, targets)
        count = _count(targets)
        _check_offset(offset, count, self.heads[0])
        held = self._held(count, groups) if held is None else held
        encoder = self.encoder_ = self._begun(source, held, unlabelled)
        reads = self._reads(encoder.config)
        bank = Heads(self.heads, encoder.size, self.units, self.seed, bottom=self.bottom, reads=reads)
        task = Finetuning(encoder, bank, source, targets, held, dropout=self.dropout, frozen=self.frozen, offset=offset)
        start = _digest(_weights(task))
        with threads(self.trainer.threads):
            task.prepare()
        identity = {
            "encoder": encoder.config.to_json(), "blind": encoder.blind,
            "heads": [head.to_data() for head in self.heads],
            "bottom": self.bottom, "units": self.units, "dropout": self.dropout, "frozen": self.frozen,
            "reads": self.reads,
            "targets": _digest({**targets, "held": held, "offset": offset}), "start": start,
        }  # fmt: skip
        self.training_ = self._train(task, source, self.trainer, "training", identity)
        self.heads_ = bank
        return self

    def embed(self, source: QuestionSource) -> NDArray[np.float32]:
        """Return the readout of each question in ascending order, (q, r)."""
        if not hasattr(self, "encoder_"):
            raise ObligorError("expected a fitted or pretrained model; call fit or pretrain first")
        _check_sizes(self.encoder_, source)
        with threads(self.trainer.threads):
            return embed(self.encoder_, source)[1]

    def log_odds(self, source: QuestionSource) -> dict[str, Floats]:
        """Return each head's log-odds, (q,), of a hazard (q, months, 2), for each question in ascending order."""
        if not hasattr(self, "heads_"):
            raise ObligorError("expected a fitted model; call fit first")
        readouts = self.embed(source)
        with threads(self.trainer.threads):
            found = log_odds(self.heads_, readouts)
        return {
            head.name: found[head.name].reshape((-1, head.months, 2) if head.kind == "hazard" else -1)
            for head in self.heads
        }

    def decision_function(self, source: QuestionSource) -> Floats:
        """Return the log-odds of the first head, (q,); of a hazard those of default within all of its months."""
        chance = self.predict_proba(source)
        if self.heads[0].kind == "hazard":
            found: Floats = np.log(chance[:, 1]) - np.log(chance[:, 0])
            return found
        return self.log_odds(source)[self.heads[0].name]

    def predict_proba(self, source: QuestionSource) -> Floats:
        """Return the chances of 0 and 1 by the first head, (q, 2), not yet calibrated."""
        head = self.heads[0]
        found = self.log_odds(source)[head.name]
        bad = pd_by(found)[:, -1] if head.kind == "hazard" else 1.0 / (1.0 + np.exp(-found))
        return np.stack((1.0 - bad, bad), axis=1)

    def export(self, path: Path) -> str:
        """Write what serving reads, configuration and all weights in one safetensors file; return its SHA-256."""
        return export(path, self.encoder_, getattr(self, "heads_", None))

    def _begun(
        self, source: QuestionSource, held: NDArray[np.bool_], unlabelled: BatchSource[Batch] | None
    ) -> SequenceEncoder:
        """Return the encoder that a fit begins with: a copy of the one that `pretrain` left, or else one of its own."""
        if hasattr(self, "start_"):
            _check_sizes(self.start_, source)
            if self.start_.config != self._config(source):
                raise BadInput(
                    f"expected an encoder of these parameters, got one that was pretrained as "
                    f"{self.start_.config.to_json()}; call pretrain again"
                )
            return copy.deepcopy(self.start_)
        if not self.pretrained:
            return self._encoder(source)
        if unlabelled is not None:
            return self._pretrained(unlabelled, None)
        return self._pretrained(cast("BatchSource[Batch]", source), held)  # branches are refused there

    def _problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the parameters that no other record looks at."""
        if self.reads not in get_args(Reads):
            yield Problem("$.reads", did_you_mean(self.reads, get_args(Reads)))
        names = [head.name for head in self.heads]
        if not names or len(set(names)) < len(names):
            yield Problem("$.heads", f"expected one or more, each of a name of its own, got {names}")
        for name in ("dropout", "held_share"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                yield Problem(f"$.{name}", f"expected a share from 0 to below 1, got {value!r}")

    def _config(self, source: QuestionSource) -> Config:
        return Config(
            kind=self.kind,
            width=self.width,
            hidden=self.hidden,
            sizes=source.sizes,
            layers=self.layers if self.kind == "transformer" else 1,
            heads=1 if self.kind == "gru" else self.attention_heads,
            tail=self.tail if self.kind == "transformer" else 0,
            fading_days=self.fading_days,
            waves=waves_of(source.periodic, WAVES),
        )

    def _encoder(self, source: QuestionSource, memory_events: int = 0) -> SequenceEncoder:
        blind = identifying(source) if self.blind is None else self.blind
        return SequenceEncoder(self._config(source), self.seed, blind=blind, memory_events=memory_events)

    def _reads(self, config: Config) -> NDArray[np.bool_]:
        """Return which coordinates of a readout the heads see; what fades and the two ages are always among them."""
        place, hidden = np.arange(readout_size(config)), config.hidden
        return (place < {"last": 1, "moments": 3, "all": 5}[self.reads] * hidden) | (place >= 5 * hidden)

    def _train(
        self,
        task: Any,  # one of the two, with a source of its batches
        source: BatchSource[Any],
        config: TrainerConfig,
        what: str,
        identity: dict[str, Any],
    ) -> Result:
        file = self.checkpoints / f"{what}.safetensors" if self.checkpoints else None
        if file is not None:
            identity = {**identity, "data": _first_batch(source, config.seed)}
        if self.crew is not None:
            task, source = Together(task, self.crew), Portion(source, self.crew)
            identity = {**identity, "crew": self.crew.size}
        writes = self.crew is None or self.crew.rank == 0
        with watched(what, quiet=self.quiet) as shown:

            def progress(now: Step) -> None:
                shown(now)
                if self.progress is not None:
                    self.progress(now)

            result = train(task, source, config, checkpoint=file, identity=identity, progress=progress, writes=writes)
        task.requires_grad_(True)
        return result

    def _held(self, count: int, groups: NDArray[Any] | None) -> NDArray[np.bool_]:
        if groups is not None and np.shape(groups) != (count,):
            raise BadInput(Problem("$.groups", f"expected a group of each of {count} rows, got {np.shape(groups)}"))
        group = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
        drawn = np.random.default_rng(self.seed).random(int(group.max(initial=-1)) + 1) < self.held_share
        return np.asarray(drawn[group])


def _check_sizes(encoder: SequenceEncoder, source: QuestionSource) -> None:
    """Raise where tokens are not those of the encoder's tokenizer: a code would be looked up as another one."""
    config = encoder.config
    if tuple(source.sizes) != config.sizes:
        raise BadInput(Problem("$.sizes", f"expected tables of {config.sizes} rows, got {source.sizes}"))
    if (tuple(source.periodic) or (False,) * len(config.sizes)) != config.periodic:
        raise BadInput(Problem("$.periodic", f"expected {config.periodic}, got {source.periodic}"))


def _count(targets: Targets) -> int:
    counts = {name: len(t.months if isinstance(t, Lived) else t) for name, t in targets.items()}
    if len(set(counts.values())) != 1:
        raise BadInput(Problem("$.y", f"expected as many rows for each head, got {counts}"))
    return next(iter(counts.values()))


def _check_offset(offset: NDArray[np.float64] | None, count: int, first: Head) -> None:
    """Raise where log-odds cannot be added to those of the first head."""
    if offset is None:
        return
    if first.kind == "hazard":
        raise BadInput(Problem("$.offset", f"expected none for the hazard {first.name!r}, got one"))
    if offset.shape != (count,) or not np.isfinite(offset).all():
        raise BadInput(Problem("$.offset", f"expected finite log-odds ({count},), got {offset.shape}"))


def _weights(task: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: value.cpu().numpy() for name, value in task.state_dict().items()}


def _first_batch(source: QuestionSource, seed: int) -> str:
    """Return the hash of what is learnt from first, by which other sequences are told apart."""
    arrays: list[NDArray[Any]] = []
    for batch in itertools.islice(source.batches(seed, 0), 1):
        arrays += (*batch.trunk, batch.row, batch.at, *batch.tail) if isinstance(batch, Branched) else batch
    return _digest({f"{place:02}": array for place, array in enumerate(arrays)})


def _digest(arrays: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        for part in (value.months, value.ended) if isinstance(value, Lived) else (value,):
            found.update(name.encode())
            found.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return found.hexdigest()
