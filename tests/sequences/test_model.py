"""The definition of a sequence model: its defaults stand, and every mistake in it is named at once."""

from __future__ import annotations

from typing import Any

import pytest

from obligor.errors import DefinitionError
from obligor.sequences import SequenceModel


def test_defaults_stand() -> None:
    assert SequenceModel(sequence="history", cutoff="2026-01-31").cutoff == "2026-01-31"
    assert SequenceModel(sequence="history", cutoff="2026-01-31T12:00:00Z").width == 32
    for kind in ("gru", "linear_attention", "transformer"):
        assert SequenceModel(sequence="history", kind=kind).hidden == 64
    assert SequenceModel(sequence="history").numbers == "piecewise"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sequence": ""}, "sequence: expected the name of a Sequence in features.py, got ''"),
        ({"kind": "transfomer"}, "kind: 'transfomer'; did you mean 'transformer'?"),
        ({"precision": "float16"}, "precision: 'float16'; did you mean 'bfloat16'?"),
        ({"hidden": 0}, "hidden: expected a whole number, 1 to 4096, got 0"),
        ({"epochs": True}, "epochs: expected a whole number, at least 1, got True"),
        ({"kind": "transformer", "heads": 3}, "hidden: expected a multiple of 6 for 3 heads, got 64"),
        ({"kind": "linear_attention", "heads": 3}, "hidden: expected a multiple of 3 for 3 heads, got 64"),
        ({"slice_min": 300}, "slice_min: expected at most slice_max 200, got 300"),
        ({"contrastive": 0, "times_ahead": 0}, "contrastive: expected weights contrastive, next_event"),
        (
            {"fading_days": (30, 30)},
            "fading_days: expected a tuple of at most 8 different whole numbers, 1 to 3650, got (3",
        ),
        ({"fading_days": (0,)}, "fading_days: expected a tuple of at most 8"),
        ({"fading_days": [30]}, "fading_days: expected a tuple of at most 8"),
        ({"masked": -1.0}, "contrastive: expected weights"),
        ({"rate": 0.0}, "rate: expected a number above 0, got 0.0"),
        ({"rate": "fast"}, "rate: expected a number above 0, got 'fast'"),
        (
            {"cutoff": "2026-13-01"},
            "cutoff: expected a date such as 2026-01-31 or an RFC 3339 moment, got '2026-13-01'",
        ),
        ({"cutoff": 20260101}, "cutoff: expected a date such as 2026-01-31 or an RFC 3339 moment, got 20260101"),
        ({"numbers": "periodical"}, "numbers: 'periodical'; did you mean 'periodic'?"),
        ({"numbers": {"gap": "bin"}}, "numbers['gap']: 'bin'; did you mean 'bins'?"),
        ({"held_share": 1.0}, "held_share: expected a share from 0 to below 1, got 1.0"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        SequenceModel(**{"sequence": "history", **given})
    assert len(caught.value.problems) == 1
    assert f"SequenceModel.{said}" in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        SequenceModel(sequence="", kind="x", width=0, tail=-1)  # type: ignore[arg-type]
    assert [one.path.split(".")[1] for one in caught.value.problems] == ["sequence", "kind", "width", "tail"]
