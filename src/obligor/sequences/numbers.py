"""How a sequence's numbers are seen, which its model chooses: all in one way, or some of them in another.

piecewise   a place between two edges, and linear from edge to edge
bins        the interval alone
periodic    sines and cosines of the number at frequencies that are learnt
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias, get_args

from obligor.errors import Problem, did_you_mean
from obligor.features.sequence_spec import SequenceSpec

__all__ = [
    "DEFAULT",
    "NumberKind",
    "Numbers",
    "kind_of",
    "number_names",
    "number_problems",
    "seen_words",
    "unknown_numbers",
]

NumberKind = Literal["piecewise", "bins", "periodic"]
Numbers: TypeAlias = NumberKind | Mapping[str, NumberKind]  # of all, or by the number's name
DEFAULT: Final[NumberKind] = "piecewise"
_WORDS: Final[Mapping[NumberKind, str]] = {
    "piecewise": "piecewise linear between quantiles",
    "bins": "by the interval between quantiles alone",
    "periodic": "by sines and cosines at learnt frequencies, and foretold by the interval",
}


def kind_of(numbers: Numbers, name: str) -> NumberKind:
    """Return how a number is seen.

    >>> kind_of("bins", "gap"), kind_of({"amount": "periodic"}, "amount"), kind_of({"amount": "periodic"}, "gap")
    ('bins', 'periodic', 'piecewise')
    """
    return numbers.get(name, DEFAULT) if isinstance(numbers, Mapping) else numbers


def number_problems(numbers: object, path: str) -> Iterator[Problem]:
    """Yield what is wrong with a choice, whatever the sequence.

    >>> [str(one) for one in number_problems({"gap": "periodical"}, "numbers")]
    ["numbers['gap']: 'periodical'; did you mean 'periodic'?"]
    """
    each = {f"[{name!r}]": kind for name, kind in numbers.items()} if isinstance(numbers, Mapping) else {"": numbers}
    for place, kind in each.items():
        if kind not in get_args(NumberKind):
            yield Problem(f"{path}{place}", f"{kind!r}; {did_you_mean(str(kind), get_args(NumberKind))}")


def number_names(spec: SequenceSpec) -> tuple[str, ...]:
    """Return the names of a sequence's numbers; the gap, the time since the event before, is one."""
    return ("gap", *(one.name for one in spec.fields if one.kind != "category"))


def seen_words(kinds: Mapping[str, NumberKind]) -> str:
    """Return how numbers are seen, a line each way.

    >>> print(seen_words({"gap": "piecewise", "amount": "bins", "price": "bins"}))
    gap: piecewise linear between quantiles
    amount, price: by the interval between quantiles alone
    """
    ways = {way: [name for name, kind in kinds.items() if kind == way] for way in _WORDS}
    return "\n".join(f"{', '.join(names)}: {_WORDS[way]}" for way, names in ways.items() if names)


def unknown_numbers(numbers: Numbers, spec: SequenceSpec, path: str) -> Iterator[Problem]:
    """Yield a problem for each name that is no number of the sequence."""
    known = number_names(spec)
    for name in numbers if isinstance(numbers, Mapping) else ():
        if name not in known:
            yield Problem(f"{path}[{name!r}]", f"no number of {spec.name!r}; {did_you_mean(str(name), known)}")
