"""How numbers are seen: what may be chosen of all or of some, and what is named where it may not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sequences import twin

from obligor.sequences.numbers import DEFAULT, kind_of, number_names, number_problems, seen_words, unknown_numbers

SPEC = twin.plan().sequences[0]


def test_a_number_is_seen_as_it_is_chosen() -> None:
    assert (kind_of(DEFAULT, "gap"), kind_of({}, "gap"), kind_of("periodic", "gap")) == ("piecewise",) * 2 + (
        "periodic",
    )
    assert [kind_of({"amount": "bins"}, name) for name in ("amount", "price")] == ["bins", "piecewise"]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("bins", []),
        ({"gap": "periodic", "amount": "bins"}, []),
        ("sines", ["numbers: 'sines'; did you mean 'bins'?"]),
        (None, ["numbers: None; valid: bins, periodic, piecewise"]),
        ({"gap": "periodc", "amount": 3}, ["numbers['gap']: 'periodc'; did you mean", "numbers['amount']: 3"]),
    ],
)  # fmt: skip
def test_what_is_no_kind_is_named(chosen: Any, said: list[str]) -> None:
    found = [str(one) for one in number_problems(chosen, "numbers")]
    assert len(found) == len(said)
    assert all(one.startswith(other) for one, other in zip(found, said, strict=True))


def test_what_is_no_number_of_the_sequence_is_named() -> None:
    assert list(unknown_numbers("periodic", SPEC, "n")) == []
    assert list(unknown_numbers({"gap": "bins", "due.delay": "periodic"}, SPEC, "n")) == []
    found = [str(one) for one in unknown_numbers({"pricee": "bins", "hour": "bins", "loan": "periodic"}, SPEC, "n")]
    assert found[0] == "n['pricee']: no number of 'history'; did you mean 'price'?"
    assert found[1].startswith("n['hour']: no number of 'history'; valid: amount")
    assert found[2].startswith("n['loan']: no number of 'history'")


def test_how_numbers_are_seen_is_said_in_words() -> None:
    assert number_names(SPEC) == ("gap", "amount", "due.delay", "price")
    kinds = {name: kind_of({"gap": "periodic", "price": "bins"}, name) for name in number_names(SPEC)}
    assert [line.partition(":")[0] for line in seen_words(kinds).split("\n")] == ["amount, due.delay", "price", "gap"]
    assert "sines and cosines" in seen_words({"gap": "periodic"})
    assert seen_words({}) == ""
