"""Programs in words keep their meaning: read back as an expression, the words compute what the program does."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.test_compilation import run

from obligor.features.infix import ATOM, PHRASE, Piece, program_words
from obligor.features.measures import Op, Step
from obligor.features.plan import FeatureSpec

VALUES = (6.0, 4.0, 3.0)
OPS: tuple[Op, ...] = ("add", "subtract", "multiply", "divide")


def operand(step: Step) -> Piece:
    """Return a measure as a name, and a phrase for the last one, which needs brackets."""
    place = int(step.value or 0)
    return Piece(f"v{place}", PHRASE if place == 2 else ATOM)


def spec_of(program: tuple[Step, ...]) -> FeatureSpec:
    """Return a feature of one program."""
    return FeatureSpec(
        name="f", program=program, type="real", unit="", reason=None, monotone=0, description="", scored=True,
        values=None,
    )  # fmt: skip


leaves = st.integers(0, 2).map(lambda i: (Step("measure", i),))
programs: st.SearchStrategy[tuple[Step, ...]] = st.recursive(
    leaves,
    lambda inner: st.builds(lambda a, b, op: (*a, *b, Step(op)), inner, inner, st.sampled_from(OPS)),
    max_leaves=8,
)


def read_back(words: str) -> float:
    """Return what an expression in words computes, null for a division by zero."""
    try:
        value = eval(words.replace(" x ", " * "), {f"v{i}": value for i, value in enumerate(VALUES)})
    except ZeroDivisionError:
        return math.nan
    return float(value)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(programs)
def test_the_words_compute_what_the_program_does(program: tuple[Step, ...]) -> None:
    words = program_words(program, operand).text
    expected, found = run(spec_of(program), list(VALUES)), read_back(words)
    assert (math.isnan(expected) and math.isnan(found)) or expected == found
    assert "(v0)" not in words, "no brackets around what needs none"


def test_a_bracket_left_out_would_be_caught() -> None:
    program = (Step("measure", 0), Step("measure", 1), Step("measure", 2), Step("subtract"), Step("subtract"))
    words = program_words(program, operand).text
    assert (words, read_back(words)) == ("v0 - (v1 - (v2))", 5.0)
    assert read_back("v0 - v1 - v2") != run(spec_of(program), list(VALUES))


def test_a_number_that_counts_only_where_something_is_true_is_said_so() -> None:
    program = (Step("measure", 0), Step("measure", 1), Step("constant", 0.0), Step("equal"), Step("multiply"))
    assert program_words(program, operand).text == "v0 if v1 = 0, else 0"


def test_times_are_said_in_their_unit() -> None:
    def seconds(step: Step) -> Piece:
        return Piece("mean seconds between seconds", PHRASE, timed="seconds")

    days = (Step("measure", 0), Step("constant", 86_400.0), Step("divide"))
    assert program_words(days, seconds).text == "mean days between seconds"
    odd = (Step("measure", 0), Step("constant", 7.0), Step("divide"))
    assert program_words(odd, seconds).text == "(mean seconds between seconds) / 7"
