from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.batches import CLOCK, append, application, batch_of, new_log, repayment, unsynced

from obligor.errors import BadInput
from obligor.events.batch import Batch
from obligor.events.rendering import timestamp_text
from obligor.events.staging import DECLARED_NONE, known_times


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    declared=st.lists(st.one_of(st.none(), st.integers(-50, 50)), max_size=30),
    last=st.integers(-60, 60),
)
def test_known_times_equal_those_given_one_by_one(declared: list[int | None], last: int) -> None:
    clock, expected, reached = 50, [], last
    for one in declared:
        known = max(clock, reached + 1) if one is None else one
        expected.append(known)
        reached = max(reached, known)
    given_times = np.array([DECLARED_NONE if one is None else one for one in declared], np.int64)
    assert expected == known_times(given_times, clock, last).tolist()


def test_measured_times_follow_the_clock_and_never_repeat(tmp_path: Path) -> None:
    with new_log(tmp_path, store=unsynced) as log:
        append(log, repayment("r-1"), repayment("r-2"), clock=CLOCK)
        append(log, repayment("r-3"), clock=CLOCK - 1_000_000)
        append(log, repayment("r-4"), clock=CLOCK + 7)
        assert log.facts("repayment").rows["known"].to_pylist() == [CLOCK, CLOCK + 1, CLOCK + 2, CLOCK + 7]


def test_a_declared_time_after_a_clock_that_went_back_is_before_what_is_measured(tmp_path: Path) -> None:
    """So that an application's as_of is never before what stands before it in the log."""
    with new_log(tmp_path, store=unsynced) as log:
        append(log, repayment("r-1", known=CLOCK), clock=CLOCK)
        append(log, application("a-1"), clock=CLOCK - 10)
        assert log.facts("loan_application").rows["known"].to_pylist() == [CLOCK + 1]


def test_a_declared_time_beyond_the_clock_is_refused(tmp_path: Path) -> None:
    with new_log(tmp_path, store=unsynced) as log, log.begin(CLOCK) as tx:
        appended = tx.append(batch_of([repayment("r-1", known=CLOCK + 1), repayment("r-2", known=CLOCK)]))
        refused = f"rejected: known_time is beyond the writer's clock, {timestamp_text(CLOCK)}, by 0:00:00.000001"
        assert appended.status == [refused, "accepted"]
        assert appended.position.tolist() == [-1, 1]
        assert appended.known_time.tolist() == [-1, CLOCK]
        again = tx.append(batch_of([repayment("r-1", known=CLOCK + 1)]), clock_us=CLOCK + 1)
        assert (again.status, again.position.tolist(), again.accepted) == (["accepted"], [2], 1)


def test_a_batch_of_another_form_is_refused_whole(tmp_path: Path) -> None:
    good = batch_of([repayment("r-1"), application("a-1")])
    part = good.parts["repayment", 1]
    amount = part.schema.names.index("amount")
    wrong = {
        "unknown event type 'repaymnt'; did you mean 'repayment'": (("repaymnt", 1), part),
        "expected repayment events of version 1, got version 2": (("repayment", 2), part),
        "have the columns": (("repayment", 1), part.drop_columns(["channel"])),
        "columns": (("repayment", 1), part.set_column(amount, "amount", pa.array([1.5]))),
    }
    with new_log(tmp_path, store=unsynced) as log, log.begin(CLOCK) as tx:
        for message, (form, table) in wrong.items():
            batch = Batch({("loan_application", 1): good.parts["loan_application", 1], form: table}, 2)
            with pytest.raises(BadInput, match=message):
                tx.append(batch)
            assert tx.head.sequence == 0


def test_parts_may_be_in_any_order_of_rows(tmp_path: Path) -> None:
    batch = batch_of([repayment("r-1"), application("a-1"), repayment("r-2")])
    turned = {name: part.take(list(range(part.num_rows))[::-1]) for name, part in batch.parts.items()}
    with new_log(tmp_path, store=unsynced) as log, log.begin(CLOCK) as tx:
        assert tx.append(Batch(turned, 3)).position.tolist() == [1, 2, 3]
        tx.commit()
        assert [log.find(one) for one in ("r-1", "a-1", "r-2")] == [1, 2, 3]


def test_an_empty_batch_is_nothing(tmp_path: Path) -> None:
    with new_log(tmp_path, store=unsynced) as log, log.begin(CLOCK) as tx:
        assert tx.append(batch_of([])).status == []
        tx.commit()
        assert log.cut() == {0: 0}
