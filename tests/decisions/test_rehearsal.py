"""A rehearsal's reader: whoever is asked about has one row, kept in memory or not, with the same numbers."""

from __future__ import annotations

import numpy as np
from tests.decisions.desk import desk_plan

from obligor.decisions.rehearsal import Rehearsal
from obligor.features.online import evaluate_one


def test_anybody_has_one_row_however_it_is_kept() -> None:
    plan = desk_plan()
    lying, kept = (Rehearsal.of(plan, kept) for kept in (False, True))
    for timeline, spec in plan.timelines.items():
        words, spans = lying.read(timeline, "anybody", None).pieces
        assert (len(words), spans.tolist()) == (3 + spec.slots, [[0, 1]])
        assert lying.read(timeline, "anybody", None).indexed is None
        assert kept.read(timeline, "anybody", None).indexed is not None
    entities = dict.fromkeys(("consumer", "merchant"), "anybody")
    one, other = (evaluate_one(plan, reader, 1, -1, entities, {}) for reader in (lying, kept))
    np.testing.assert_array_equal(one, other)
