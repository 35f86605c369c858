"""Parity finds every number whose bits differ, and nothing else; a naive reading of the events gives the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from tests.decisions.shop import DAY, PLAN, START, Desk, Purchase, run, stream

from obligor.events.fields import parse_timestamp
from obligor.features.parity import REFUSAL, Answers, Question, Sample, answer, answers, compare

KNOWN = {"consumer": "c-1", "merchant": "m-1"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, list[dict[str, Any]]]:
    """A desk, and all it was told in the order of the log."""
    desk, records = Desk(tmp_path_factory.mktemp("shop")), list(stream(9, 300, consumers=5, merchants=2))
    run(desk, records)
    return desk, records


def _ask(desk: Desk, entities: Mapping[str, str | None], later: int = 0) -> Sample:
    question = Question(entities, {"amount": 7_000})
    with desk.state.begin() as staged:
        return answer(PLAN, staged, question, desk.log.cut(), desk.log.last_known_time + later)


def _given(desk: Desk, *samples: Sample) -> Answers:
    return answers(PLAN, samples, Purchase)


def test_what_the_state_says_is_what_the_log_says(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, _ = shop
    samples = [
        _ask(desk, {"consumer": f"c-{i}", "merchant": merchant}, later)
        for i in range(6)
        for merchant in ("m-0", "m-1", None)
        for later in (0, DAY, 29 * DAY)
    ]
    found = compare(PLAN, desk.log, _given(desk, *samples))
    assert (found.checked, found.differences, found.rows) == (len(samples), 0, [])


def _changed(sample: Sample, place: int, value: float) -> Sample:
    assert sample.values is not None
    values = sample.values.copy()
    values[place] = value
    return sample._replace(values=values)


def test_one_bit_is_a_difference_and_is_named(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, _ = shop
    right = _ask(desk, KNOWN)
    assert right.values is not None
    place = PLAN.names.index("repaid_30d")
    wrong = _changed(right, place, math.nextafter(float(right.values[place]), math.inf))
    found = compare(PLAN, desk.log, _given(desk, right, wrong))
    (one,) = found.found
    assert (one.feature, one.offline, one.entities, one.as_of) == (
        "repaid_30d",
        right.values[place],
        KNOWN,
        right.as_of,
    )
    assert (one.cut, one.name, one.online) == (desk.log.cut(), "", wrong.values[place])  # type: ignore[index]
    assert (found.rows, dict(found.counts), found.differences) == ([1], {"repaid_30d": 1}, 1)


def test_null_and_zero_differ_and_the_two_zeros_do_not(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, _ = shop
    right = _ask(desk, {"consumer": "nobody", "merchant": "m-1"})
    assert right.values is not None
    zero, null = PLAN.names.index("repaid_30d"), PLAN.names.index("mean_paid")
    assert right.values[zero] == 0
    assert np.isnan(right.values[null])
    assert compare(PLAN, desk.log, _given(desk, _changed(right, zero, -0.0))).differences == 0
    assert compare(PLAN, desk.log, _given(desk, _changed(right, null, -math.nan))).differences == 0
    assert compare(PLAN, desk.log, _given(desk, _changed(right, zero, math.nan))).found[0].feature == "repaid_30d"
    assert compare(PLAN, desk.log, _given(desk, _changed(right, null, 0.0))).found[0].feature == "mean_paid"


def test_another_cut_or_instant_is_another_answer(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, _ = shop
    right = _ask(desk, KNOWN)
    earlier = right._replace(cut={0: desk.log.head.sequence // 2})
    assert compare(PLAN, desk.log, _given(desk, earlier)).differences > 0
    assert compare(PLAN, desk.log, _given(desk, right._replace(as_of=right.as_of - 10 * DAY))).differences > 0
    assert compare(PLAN, desk.log, _given(desk, right._replace(question=Question(KNOWN, {})))).differences > 0


def test_a_refusal_is_compared_by_its_words(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, _ = shop
    paid = {"type": "repayment", "consumer": "rich", "loan": "l", "amount": 2**62, "event_time": "2025-06-01T00:00:00Z"}
    desk.take([{**paid, "event_id": "p-rich"}])
    refused = _ask(desk, {"consumer": "rich", "merchant": None})
    assert refused.values is None
    assert refused.refusal.startswith("$.features.last_paid: an integer beyond")
    assert compare(PLAN, desk.log, _given(desk, refused)).differences == 0
    found = compare(PLAN, desk.log, _given(desk, refused._replace(refusal="another reason")))
    assert (found.found[0].feature, found.found[0].online) == (REFUSAL, "another reason")
    right = _ask(desk, KNOWN)
    found = compare(PLAN, desk.log, _given(desk, right._replace(values=None, refusal="no reason"), refused, right))
    assert (found.rows, found.found[0].offline) == ([0], "numbers")
    found = compare(PLAN, desk.log, _given(desk, refused._replace(values=np.zeros(len(PLAN.features)), refusal="")))
    assert dict(found.counts) == {REFUSAL: 1}


def test_a_state_that_cannot_be_read_gives_an_answer_that_differs(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, _ = shop

    class Damaged:
        def read(self, timeline: str, key: str, since_us: int | None) -> Any:
            raise ValueError("cannot reshape")

    sample = answer(PLAN, Damaged(), Question(KNOWN, {"amount": 1}), desk.log.cut(), desk.now)
    assert sample.refusal == "ValueError: cannot reshape"
    assert compare(PLAN, desk.log, _given(desk, sample)).differences == 1


def test_comparisons_are_joined(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, _ = shop
    right = _ask(desk, KNOWN)
    one = compare(PLAN, desk.log, _given(desk, right))
    one.join(compare(PLAN, desk.log, _given(desk, _changed(right, 0, 1.5), right)))
    assert (one.checked, one.differences, len(one.found)) == (3, 1, 1)
    assert compare(PLAN, desk.log, _given(desk)).checked == 0


# ---- a naive reading of the same events -----------------------------------------------------------------------------


def _facts(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the facts that hold after all records: the last word on each, as plain dicts."""
    root: dict[str, str] = {}
    held: dict[str, dict[str, Any]] = {}
    for record in records:
        about = record.get("corrects") or record.get("retracts")
        root[record["event_id"]] = name = root[about] if about else record["event_id"]
        if "retracts" in record:
            held.pop(name, None)
        else:
            held[name] = record
    for record in held.values():
        yield {**record, "at": parse_timestamp(record["event_time"])}


def test_the_numbers_are_those_of_a_naive_reading(shop: tuple[Desk, list[dict[str, Any]]]) -> None:
    desk, records = shop
    facts = list(_facts(records))
    for i in range(5):
        for later in (0, 3 * DAY, 12 * DAY):
            as_of = desk.log.last_known_time + later
            sample = _ask(desk, {"consumer": f"c-{i}", "merchant": f"m-{i % 2}"}, later)
            assert sample.values is not None
            values = dict(zip(PLAN.names, sample.values.tolist(), strict=True))

            def within(kind: str, days: int, as_of: int = as_of, i: int = i) -> list[dict[str, Any]]:
                who = ("merchant", f"m-{i % 2}") if kind == "sale" else ("consumer", f"c-{i}")
                own = [fact for fact in facts if fact["type"] == kind and fact[who[0]] == who[1]]
                return [fact for fact in own if as_of - days * DAY <= fact["at"] < as_of]

            paid, sold = within("repayment", 30), within("sale", 30)
            assert values["repaid_30d"] == sum(fact["amount"] for fact in paid)
            assert values["repaid_7d"] == sum(fact["amount"] for fact in within("repayment", 7))
            assert values["payments"] == len(paid)
            assert values["late_30d"] == sum(fact.get("days_late", 0) > 0 for fact in paid)
            assert values["sold_30d"] == sum(fact["amount"] for fact in sold)
            assert values["buyers"] == len({fact["consumer"] for fact in sold if "consumer" in fact})
            best = [fact["amount"] for fact in within("sale", 7)]
            assert values["best_sale"] == max(best) if best else math.isnan(values["best_sale"])
            assert values["amount"] == 7_000
    assert desk.now > START
