"""Fitting: vocabularies and edges are what counting by hand gives, of nothing that is later than the view."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from tests.features.draws import Batch, drawn, side_by_side
from tests.features.examples import repaid_at
from tests.features.oracle import Fact, Looked, Request, view
from tests.features.plans import DAY, START
from tests.features.worlds import EXTREMES
from tests.sequences import twin

from obligor.features.portable import log
from obligor.sequences.asked import Everyone
from obligor.sequences.fitting import TokenSettings, edges_of, fit_tokenizer, known_values
from obligor.sequences.tokens import Tokenizer

LN2 = 0.6931471805599453
AT = Everyone(START + 1, {0: 100_000})


@cache
def _worlds() -> Batch:
    return side_by_side(drawn(count=40))


def _seen(facts: Sequence[Fact], faults: Collection[str] = ()) -> dict[str, list[Any]]:
    """Return every value of every field that any entity's view at the cut-off has."""
    data = twin.plan(zone="UTC").data
    [spec] = data["sequences"]
    keys = {v.fields[name] for f in facts for v in f.versions if v.fields for name in ("consumer", "referrer")
            if v.fields.get(name) is not None}  # fmt: skip
    found: dict[str, list[Any]] = {name: [] for name in ("type", "gap", "hour", "weekday", "day_of_month")}
    found |= {field["name"]: [] for field in spec["fields"]}
    for key in sorted(keys):
        request = Request(AT.as_of, AT.cut[0], {"consumer": key, "merchant": None})
        seen = view(facts, request, faults)
        looked = Looked(data, spec, seen, request, ())
        last = None
        for row in seen:
            kind = next((one for one in spec["selections"] if looked.selects(one, row)), None)
            if kind is None:
                continue
            found["type"].append(spec["selections"].index(kind))
            seconds = row.time // 1_000_000
            found["hour"].append(seconds // 3600 % 24)
            found["weekday"].append((seconds // 86400 + 3) % 7)
            found["day_of_month"].append(np.datetime64(row.time, "us").astype(object).day)
            if last is not None:
                found["gap"].append(_log2(1.0 + (row.time - last) / 1e6))
            last = row.time
            for field in spec["fields"]:
                source = next((one for one in field["sources"] if one["selection"] == kind), None)
                value: float | None = None if source is None else looked.value(source["slot"], row)
                if value is None or source is None:
                    continue
                if field["kind"] != "category":
                    value = value / float(10 ** source["scale"])
                    value = math.copysign(_log2(1.0 + abs(value)), value) if field["kind"] == "magnitude" else value
                elif field["name"] == "channel" and value == 2:
                    continue  # a text that the plan's vocabulary does not have
                found[field["name"]].append(value)
    return found


def _log2(x: float) -> float:
    return float(log(x)) / LN2


def _expected(found: dict[str, list[Any]], count_min: int, intervals: int) -> list[tuple[str, list[Any]]]:
    fields = []
    for name, values in found.items():
        if name in ("gap", "amount", "due.delay", "price"):
            ordered = sorted(values)
            places = [i * (len(ordered) - 1) // intervals for i in range(intervals + 1)]
            fields.append((name, sorted({ordered[place] for place in places}) if ordered else []))
        else:
            least = count_min if name in ("loan", "channel", "merchant") else 1
            counted = sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))
            fields.append((name, [value for value, count in counted if count >= least]))
    return fields


def _fitted(facts: Sequence[Fact], settings: TokenSettings) -> Tokenizer:
    return fit_tokenizer(twin.plan(zone="UTC"), twin.NAME, twin.Log(facts), AT, settings)


@pytest.mark.parametrize(("count_min", "intervals"), [(1, 3), (9, 8)])
def test_it_knows_what_the_view_at_the_cut_off_has(count_min: int, intervals: int) -> None:
    facts = _worlds().facts
    tokenizer = _fitted(facts, TokenSettings(intervals=intervals, count_min=count_min))
    found = [(one.name, list(one.values if one.edges is None else one.edges)) for one in tokenizer.fields]  # type: ignore[arg-type]
    assert found == _expected(_seen(facts), count_min, intervals)
    assert [one.name for one in tokenizer.fields if one.slow] == ["loan"]
    for fault in ("known", "versions", "future"):
        assert found != _expected(_seen(facts, [fault]), count_min, intervals)


def test_what_is_later_than_the_view_changes_nothing() -> None:
    worlds = _worlds()
    past = _fitted(worlds.facts, TokenSettings(intervals=4))
    later = side_by_side(drawn(EXTREMES, count=80)).facts
    offset = sum(len(one.versions) for one in worlds.facts)
    moved = []
    for number, one in enumerate(later):
        versions = [
            type(v)(
                v.position + offset, v.known + 60 * DAY, v.parent, v.fields and {**v.fields, "loan": f"new {number}"}
            )
            for v in one.versions
        ]
        moved.append(Fact(one.type, versions))
    assert _fitted([*worlds.facts, *moved], TokenSettings(intervals=4)).canonical == past.canonical


def test_a_sample_is_the_same_whatever_the_order_and_near_the_whole() -> None:
    facts = [
        Fact("repayment", [_version(i, int(amount))]) for i, amount in enumerate(_amounts(4000), 1)
    ]  # fmt: skip
    settings = TokenSettings(intervals=4, sample=1000)
    one, other = _fitted(facts, settings), _fitted(facts[::-1], settings)
    assert one.canonical == other.canonical
    place = one.names.index("amount")
    edges, whole = one.fields[place].edges, _fitted(facts, TokenSettings(intervals=4)).fields[place].edges
    assert edges is not None
    assert whole is not None
    assert edges != whole
    assert np.allclose(edges[1:-1], whole[1:-1], atol=0.5)


def _amounts(n: int) -> Any:
    return np.random.default_rng(3).lognormal(9, 2, n)


def _version(position: int, amount: int) -> Any:
    return repaid_at(position, START - position * 1_000_000, amount).versions[0]


def test_the_most_frequent_values_are_known() -> None:
    values, counts = np.array([7, 3, 5, 9]), np.array([2, 5, 5, 1])
    assert known_values(values, counts, 1, 10) == (3, 5, 7, 9)
    assert known_values(values, counts, 2, 2) == (3, 5)
    assert known_values(values, counts, 6, 10) == ()


def test_edges_are_order_statistics_each_once() -> None:
    assert edges_of(np.array([]), 4) == ()
    assert edges_of(np.array([2.0]), 4) == (2.0,)
    assert edges_of(np.array([5.0, 1.0, 1.0, 1.0, 2.0]), 4) == (1.0, 2.0, 5.0)


def test_numbers_may_be_seen_in_bins() -> None:
    tokenizer = _fitted(_worlds().facts, TokenSettings(numbers={"gap": "bins", "price": "bins"}))
    kinds = {one.name: one.kind for one in tokenizer.fields}
    assert (kinds["gap"], kinds["price"], kinds["amount"], kinds["type"]) == ("bins", "bins", "piecewise", "category")
