"""What a lender's model.py declares of a sequence model: what is read, by which encoder, learnt how."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from obligor.errors import DefinitionError, Problem, did_you_mean
from obligor.events.fields import parse_timestamp
from obligor.sequences.numbers import DEFAULT, Numbers, number_problems
from obligor.sequences.weights import FADING_DAYS_MAX, FADING_MAX, HIDDEN_MAX, LAYERS_MAX, TAIL_MAX, WIDTH_MAX, Kind

__all__ = ["Precision", "SequenceModel"]

Precision = Literal["float32", "bfloat16"]

_WHOLE = {
    "width": (1, WIDTH_MAX), "hidden": (1, HIDDEN_MAX), "layers": (1, LAYERS_MAX), "heads": (1, HIDDEN_MAX),
    "tail": (1, TAIL_MAX), "slices": (2, None), "slice_min": (1, None), "slice_max": (1, None), "epochs": (1, None),
    "steps_min": (0, None), "patience": (1, None), "tokens_max": (1, None), "intervals": (1, None),
    "count_min": (1, None), "seed": (0, None),
}  # fmt: skip
_WEIGHTS = ("contrastive", "next_event", "masked", "times_ahead")


@dataclass(frozen=True)
class SequenceModel:
    """One flat record; every default is a choice that is meant to be left alone, on small data and on large.

    >>> SequenceModel(sequence="history").kind
    'gru'
    >>> SequenceModel(sequence="history", kind="gur")
    Traceback (most recent call last):
    obligor.errors.DefinitionError: SequenceModel.kind: 'gur'; did you mean 'gru'?
    """

    sequence: str  # its name in features.py
    cutoff: str | None = None  # date or RFC 3339: only what was known by then is learnt from; None: that of `model`
    kind: Kind = "gru"
    width: int = 32  # numbers of a token
    hidden: int = 64  # numbers of what the encoder makes of an event
    layers: int = 1  # of a Transformer
    heads: int = 4  # of linear attention and of a Transformer
    tail: int = 256  # events that a Transformer looks back; the others look at all
    fading_days: tuple[int, ...] = (30, 90)  # days over each of which a sum of these fades: habits of the last weeks
    contrastive: float = 0.0  # weight: pieces of one entity's sequence are told from those of others
    next_event: float = 0.0  # weight: the event that follows is foretold
    masked: float = 0.0  # weight: hidden fields are found from the others
    times_ahead: float = 1.0  # weight: when each kind of event comes next is foretold
    slices: int = 5  # of each entity, that are compared
    slice_min: int = 25  # events
    slice_max: int = 200  # events
    epochs: int = 10  # at most; it stops where what is held back gets no better
    steps_min: int = 400  # on small data more epochs are made until there are so many steps
    rate: float = 6e-3  # of learning, at its highest
    patience: int = 5  # looks at what is held back without a better one
    held_share: float = 0.1  # of the entities, held back to stop by
    tokens_max: int = 16_384  # of a batch; a GPU wants more, such as 131_072
    precision: Precision = "float32"  # of products; bfloat16 gains little below some hundred hidden units
    intervals: int = 32  # between the edges of a number, at most
    count_min: int = 5  # of a category's value, to be known
    numbers: Numbers = DEFAULT  # how they are seen: piecewise, bins or periodic, all or by name
    seed: int = 0

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise DefinitionError(problems)

    def _problems(self) -> Iterator[Problem]:
        if not isinstance(self.sequence, str) or not self.sequence:
            yield _problem("sequence", f"expected the name of a Sequence in features.py, got {self.sequence!r}")
        if self.kind not in get_args(Kind):
            yield _problem("kind", f"{self.kind!r}; {did_you_mean(str(self.kind), get_args(Kind))}")
        if self.precision not in get_args(Precision):
            yield _problem("precision", f"{self.precision!r}; {did_you_mean(str(self.precision), get_args(Precision))}")
        if self.cutoff is not None and not _is_moment(self.cutoff):
            yield _problem("cutoff", f"expected a date such as 2026-01-31 or an RFC 3339 moment, got {self.cutoff!r}")
        days = self.fading_days
        fit = isinstance(days, tuple) and all(map(_is_span, days))
        if not fit or not len(set(days)) == len(days) <= FADING_MAX:
            allowed = f"at most {FADING_MAX} different whole numbers, 1 to {FADING_DAYS_MAX}"
            yield _problem("fading_days", f"expected a tuple of {allowed}, got {days!r}")
        yield from number_problems(self.numbers, "SequenceModel.numbers")
        unfit = False
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if type(value) is not int or value < least or (most is not None and value > most):
                bound = f"{least} to {most}" if most is not None else f"at least {least}"
                yield _problem(name, f"expected a whole number, {bound}, got {value!r}")
                unfit = True
        if unfit:
            return
        per_head = {"transformer": 2, "linear_attention": 1}.get(self.kind, 0)
        if per_head and self.hidden % (per_head * self.heads):
            wanted = per_head * self.heads
            yield _problem("hidden", f"expected a multiple of {wanted} for {self.heads} heads, got {self.hidden}")
        if self.slice_min > self.slice_max:
            yield _problem("slice_min", f"expected at most slice_max {self.slice_max}, got {self.slice_min}")
        weights = [getattr(self, name) for name in _WEIGHTS]
        if not all(_is_number(one) and one >= 0 for one in weights) or not any(weights):
            yield _problem(
                "contrastive", f"expected weights {', '.join(_WEIGHTS)} of 0 or more, one above 0: {weights}"
            )
        if not _is_number(self.rate) or self.rate <= 0:
            yield _problem("rate", f"expected a number above 0, got {self.rate!r}")
        if not _is_number(self.held_share) or not 0 <= self.held_share < 1:
            yield _problem("held_share", f"expected a share from 0 to below 1, got {self.held_share!r}")


def _is_span(days: object) -> bool:
    return type(days) is int and 1 <= days <= FADING_DAYS_MAX


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_moment(text: object) -> bool:
    try:
        parse_timestamp(f"{text}" if "T" in f"{text}" else f"{text}T00:00:00Z")
    except ValueError:
        return False
    return isinstance(text, str)


def _problem(name: str, message: str) -> Problem:
    return Problem(f"SequenceModel.{name}", message)
