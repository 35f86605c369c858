"""Programs of a plan in infix words, with brackets only where they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from obligor.features.measures import Step

__all__ = ["ATOM", "PHRASE", "Piece", "program_words"]

_INFIX = {  # operator and how tightly it binds
    "less": ("<", 1),
    "less_equal": ("<=", 1),
    "greater": (">", 1),
    "greater_equal": (">=", 1),
    "equal": ("=", 1),
    "not_equal": ("is not", 1),
    "add": ("+", 2),
    "subtract": ("-", 2),
    "multiply": ("x", 3),
    "divide": ("/", 3),
}
ATOM, PHRASE = 9, 0  # a phrase is bracketed wherever it meets an operator
_TIMES = {  # what a time divided by a constant is
    ("microseconds", 1_000_000.0): "seconds",
    ("microseconds", 3_600_000_000.0): "hours",
    ("microseconds", 86_400_000_000.0): "days",
    ("seconds", 3_600.0): "hours",
    ("seconds", 86_400.0): "days",
}


@dataclass(frozen=True)
class Piece:
    """A part of a definition in words."""

    text: str
    binding: int = ATOM
    values: tuple[str, ...] | None = None  # of a category
    truth: bool = False  # a comparison, or a combination of them
    number: float | None = None  # of a constant
    timed: str = ""  # the unit of time in which the text begins to speak
    moment: bool = False  # as_of itself

    def within(self, binding: int = ATOM) -> str:
        """Return the text, bracketed where it binds less than what it stands in."""
        return f"({self.text})" if self.binding < binding else self.text


def program_words(program: Iterable[Step], operand: Callable[[Step], Piece]) -> Piece:
    """Return a program in words; `operand` gives those of a measure or a request value."""
    stack: list[Piece] = []
    for step in program:
        if step.op == "fill":
            filled = stack.pop()
            text = f"{filled.text}, or {_number(step, filled.values)} if unknown"
            stack.append(replace(filled, text=text, binding=PHRASE))
        elif step.op == "constant":
            stack.append(_constant(step, stack[-1].values if stack else None))
        elif step.op in ("measure", "request"):
            stack.append(operand(step))
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(_join(step, left, right))
    [piece] = stack
    return piece


def _constant(step: Step, beside: tuple[str, ...] | None) -> Piece:
    return Piece(_number(step, beside), number=float(step.value or 0))


def _join(step: Step, left: Piece, right: Piece) -> Piece:
    op = step.op
    if op == "subtract" and left.moment:
        return Piece(f"microseconds since {right.text}", PHRASE, timed="microseconds")
    if op == "divide" and (unit := _TIMES.get((left.timed, right.number or 0))):
        return replace(left, text=left.text.replace(left.timed, unit, 1), timed=unit)
    if op == "equal" and left.truth and right.number == 0:
        return Piece(f"not ({left.text})", truth=True)
    if op == "multiply" and right.truth and not left.truth:
        return Piece(f"{left.within()} if {right.text}, else 0", PHRASE)
    if op == "divide" and right.truth:
        return Piece(f"{left.within()} if {right.text}, else unknown", PHRASE)
    if op in ("minimum", "maximum"):
        if left.truth and right.truth:
            word = "and" if op == "minimum" else "or"
            return Piece(f"({left.text}) {word} ({right.text})", PHRASE, truth=True)
        return Piece(
            f"the {'lesser' if op == 'minimum' else 'greater'} of {left.within()} and {right.within()}", PHRASE
        )
    sign, binding = _INFIX[op]
    return Piece(
        f"{left.within(binding)} {sign} {right.within(binding + 1)}", binding, truth=binding == _INFIX["equal"][1]
    )


def _number(step: Step, values: tuple[str, ...] | None) -> str:
    value = float(step.value or 0)
    if values is not None and value.is_integer() and 0 <= value < len(values):
        return repr(values[int(value)])
    return f"{value:,.0f}" if value.is_integer() else f"{value:,}"
