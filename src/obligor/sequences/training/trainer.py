"""The training loop: steps of AdamW, early stopping on a slice held back, checkpoints, exact resume.

All chance is a pure function of (seed, step) and the order of batches one of (seed, epoch), so a checkpoint holds
weights, the optimiser's moments and three counters, and a run that goes on from it ends with the very weights of one
that was never broken off (on CPU, with the same number of threads; a GPU's sums have no fixed order).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar, get_args

import torch
from torch import Tensor, nn

from obligor.errors import BadInput, ObligorError, Problem
from obligor.sequences.batches import BatchSource
from obligor.sequences.model import Precision
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

__all__ = ["Diverged", "Loss", "Progress", "Result", "Step", "Task", "TrainerConfig", "device_of", "threads", "train"]

WARM_UP_SHARE: Final = 0.05  # of the steps, until the full rate
RATE_SHARE_MIN: Final = 0.05  # of the rate, at the last step


class Loss(NamedTuple):
    """The loss of one step."""

    total: Tensor  # what is minimised
    parts: dict[str, float]
    events: int  # that the encoder went through


Kind = TypeVar("Kind")
KindIn = TypeVar("KindIn", contravariant=True)


class Task(Protocol[KindIn]):
    """What is learnt: a torch module with a loss, and a score to stop by."""

    def loss(self, batch: KindIn, chance: Chance) -> Loss | None:
        """Return the loss of a batch; nothing if the batch teaches nothing."""
        ...

    def score(self) -> float | None:
        """Return the loss on what is held back, the less the better; nothing if nothing is."""
        ...


@dataclass(frozen=True)
class TrainerConfig:
    """How long and how fast."""

    epochs: int = 10
    steps_min: int = 400  # on small data more epochs are made until there are so many
    steps_max: int | None = None  # at which it ends, whatever the epochs
    rate: float = 2e-3  # of AdamW, at its highest
    weight_decay: float = 1e-2
    clip: float = 1.0  # of the gradient's norm
    look_steps: int = 100  # between two looks at what is held back, or an epoch where that is longer
    patience: int = 5  # looks without a better score before it stops
    checkpoint_steps: int = 200
    seed: int = 0
    threads: int = 1  # more of them wait by spinning, which costs far more than it gains on a busy machine
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "float32"  # of products; bfloat16 gains little below some hundred hidden units

    def __post_init__(self) -> None:
        least = {"epochs": 1, "steps_min": 0, "look_steps": 1, "patience": 1, "checkpoint_steps": 1, "threads": 1}
        wrong = [
            Problem(f"$.{name}", f"expected at least {low}, got {getattr(self, name)!r}")
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        for name, wanted in (("device", ("auto", "cpu", "cuda")), ("precision", get_args(Precision))):
            if getattr(self, name) not in wanted:
                wrong.append(Problem(f"$.{name}", f"expected one of {', '.join(wanted)}, got {getattr(self, name)!r}"))
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                wrong.append(Problem(f"$.{name}", f"expected a number above 0, got {getattr(self, name)!r}"))
        if self.steps_max is not None and self.steps_max < 1:
            wrong.append(Problem("$.steps_max", f"expected at least 1, or None, got {self.steps_max!r}"))
        if wrong:
            raise BadInput(wrong)


class Step(NamedTuple):
    """Where a run is, for whoever watches it."""

    step: int  # done
    steps: int  # that there are at most
    loss: float
    parts: dict[str, float]
    events: int  # of this step
    score: float | None  # the latest look at what is held back
    best: float | None
    looked: int = 0  # the step of that look


Progress = Callable[[Step], None]


@dataclass
class Result:
    """What a run came to."""

    steps: int = 0
    best: float | None = None
    best_step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)  # step and score of each look


def device_of(config: TrainerConfig) -> torch.device:
    """Return the device that a run is made on."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


class Diverged(ObligorError):
    """A loss that is no longer a finite number."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    """A run under way: module, optimiser, counters."""

    def __init__(self, module: nn.Module, config: TrainerConfig, steps: int) -> None:
        self.module, self.config, self.steps = module, config, steps
        matrices = [p for p in module.parameters() if p.requires_grad and p.dim() > 1]
        vectors = [p for p in module.parameters() if p.requires_grad and p.dim() <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=config.rate, weight_decay=config.weight_decay)
        self.step = 0
        self.result = Result()
        self.kept: dict[str, Tensor] = {}  # the weights of the best look

    def rate(self) -> float:
        """Return this step's rate: up in a line, then down along a cosine."""
        warm = max(1, round(self.steps * WARM_UP_SHARE))
        if self.step < warm:
            return self.config.rate * (self.step + 1) / warm
        gone = (self.step - warm) / max(1, self.steps - warm)
        return self.config.rate * (RATE_SHARE_MIN + (1 - RATE_SHARE_MIN) * (1 + math.cos(math.pi * gone)) / 2)

    def learn(self, found: Loss) -> None:
        """Take one step down."""
        if not bool(torch.isfinite(found.total)):
            raise Diverged(f"the loss of step {self.step} is not finite ({found.parts}); try a lower rate")
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.zero_grad(set_to_none=True)
        found.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip)
        if not bool(torch.isfinite(norm)):
            raise Diverged(f"the slope of the loss of step {self.step} is not finite; try a lower rate")
        self.optimiser.step()

    def look(self, score: float) -> bool:
        """Note a look at what is held back; return whether it is time to stop."""
        if not math.isfinite(score):
            raise Diverged(f"what is held back has the loss {score} after {self.step} steps; try a lower rate")
        result = self.result
        result.curve.append({"step": self.step, "score": score})
        if result.best is None or score < result.best:
            result.best, result.best_step = score, self.step
            self.kept = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        since = sum(1 for look in result.curve if look["step"] > result.best_step)
        return since >= self.config.patience

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was written."""
        self.module.load_state_dict(checkpoint.part("module"))
        self.kept = checkpoint.part("kept")
        moments = self.optimiser.state_dict()
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in checkpoint.part("optimiser").items():
            number, _, key = name.partition(".")
            slots.setdefault(int(number), {})[key] = value
        self.optimiser.load_state_dict({**moments, "state": slots})
        self.step = checkpoint.header["step"]
        self.result = Result(**checkpoint.header["result"])

    def checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        """Return all that it takes to go on from here."""
        tensors = {f"module/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"kept/{name}": value for name, value in self.kept.items()}
        for number, slot in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{number}.{key}": value for key, value in slot.items()}
        return Checkpoint({"step": self.step, "result": asdict(self.result)}, identity, tensors)


def train(
    task: Task[Kind],
    source: BatchSource[Kind],
    config: TrainerConfig,
    *,
    checkpoint: Path | None = None,
    identity: dict[str, Any] | None = None,
    progress: Progress = lambda step: None,
    writes: bool = True,
) -> Result:
    """Train a task, a torch module, on a source; it ends with the weights of the best look, or else the last.

    With a checkpoint file the run goes on from it if it is there, and writes it as it goes. `identity` says what run
    the file is of (data, configuration); one of another run raises, as one that is cut short or altered does. `writes`:
    whether the file is written here, or by another process that takes the same steps.
    """
    if not isinstance(task, nn.Module):
        raise TypeError(f"expected a torch module, got {type(task).__name__}")
    device, length = device_of(config), len(source)
    if length == 0:
        raise BadInput("expected at least one batch to train on, got none")
    epochs = max(config.epochs, -(-config.steps_min // length))
    steps = epochs * length if config.steps_max is None else min(config.steps_max, epochs * length)
    run = _Run(task.to(device), config, steps)
    whole = {**(identity or {}), "trainer": asdict(config), "batches": length}
    with threads(config.threads):
        if checkpoint is not None and checkpoint.exists():
            run.restore(read_checkpoint(checkpoint, whole, device))
        _steps(run, task, source, length, progress, lambda: _save(run, checkpoint if writes else None, whole))
        if run.kept:
            task.load_state_dict(run.kept)
    run.result.steps = run.step
    return run.result


def _save(run: _Run, path: Path | None, identity: dict[str, Any]) -> None:
    if path is not None:
        write_checkpoint(path, run.checkpoint(identity))


def _steps(
    run: _Run, task: Task[Kind], source: BatchSource[Kind], length: int, progress: Progress, save: Callable[[], None]
) -> None:
    config, every = run.config, max(run.config.look_steps, min(length, 10 * run.config.look_steps))
    stopping = _stopped(run)
    while run.step < run.steps and not stopping:
        epoch, index = divmod(run.step, length)
        for batch in _rest(source, config.seed, epoch, index, length):
            with _precision(config):
                found = task.loss(batch, Chance(config.seed, run.step))
            if found is not None:
                run.learn(found)
            run.step += 1
            if run.step % every == 0 or run.step == run.steps:
                score = _score(task)
                stopping = (score is not None and run.look(score)) or run.step == run.steps
            if run.step % config.checkpoint_steps == 0 or stopping:
                save()
            progress(_told(run, found))
            if stopping:
                break


def _stopped(run: _Run) -> bool:
    looks = [look for look in run.result.curve if look["step"] > run.result.best_step]
    return len(looks) >= run.config.patience


def _rest(source: BatchSource[Kind], seed: int, epoch: int, index: int, length: int) -> Iterator[Kind]:
    """An epoch's batches from one on. A run counts as many in each epoch; the first stand for what one lacks."""
    took = 0
    for batch in itertools.islice(source.batches(seed, epoch, index), length - index):
        took += 1
        yield batch
    if took < length - index:
        whole = itertools.chain(source.batches(seed, epoch), source.batches(seed, epoch))
        yield from itertools.islice(whole, index + took, length)


def _score(task: Task[Any]) -> float | None:
    with torch.no_grad():
        return task.score()


def _precision(config: TrainerConfig) -> Any:
    if config.precision == "bfloat16":
        return torch.autocast(device_of(config).type, dtype=torch.bfloat16)
    return nullcontext()


def _told(run: _Run, found: Loss | None) -> Step:
    curve = run.result.curve
    score, looked = (curve[-1]["score"], int(curve[-1]["step"])) if curve else (None, 0)
    loss = math.nan if found is None else found.total.item()
    events = 0 if found is None else found.events
    return Step(run.step, run.steps, loss, found.parts if found else {}, events, score, run.result.best, looked)
