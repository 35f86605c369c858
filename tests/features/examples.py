"""Worlds that are written down: one for each thing that can happen to a fact, and what a few measures of it must be.

The numbers in KNOWN were worked out by hand, so that a misreading which the oracle and SQL share would still show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from tests.features.draws import Batch, World
from tests.features.oracle import Fact, Request, Version
from tests.features.plans import (
    DAY,
    START,
    calendar_window,
    inner,
    keyed,
    measure,
    rows_window,
    since_window,
)

__all__ = ["BEYOND", "EXAMPLES", "KNOWN", "LIMITS", "crowd", "many", "repaid", "repaid_at", "request", "sold"]

_HOUR = 3_600_000_000


def repaid(position: int, days_ago: float, amount: int | None = 1, **fields: Any) -> Fact:
    """Return a repayment of consumer a, known at once."""
    return repaid_at(position, START - round(days_ago * DAY), amount, **fields)


def repaid_at(position: int, time: int, amount: int | None = 1, *, known: int | None = None, **fields: Any) -> Fact:
    """Return a repayment at an instant."""
    return Fact(
        "repayment", [Version(position, time if known is None else known, None, payment(time, amount, **fields))]
    )


def payment(time: int, amount: int | None = 1, **fields: Any) -> dict[str, Any]:
    """Return the fields of a repayment."""
    names = dict.fromkeys(("merchant", "loan", "due", "channel"))
    return {**names, "event_time": time, "consumer": "a", "amount": amount} | fields


def sold(position: int, days_ago: float, price: int | None = 1, **fields: Any) -> Fact:
    """Return a sale of merchant m to consumer a, known at once."""
    time = START - round(days_ago * DAY)
    names = dict.fromkeys(("referrer", "item", "channel"))
    values = {**names, "event_time": time, "merchant": "m", "consumer": "a", "price": price} | fields
    return Fact("sale", [Version(position, time, None, values)])


def request(as_of: int = START, cut: int = 1000, consumer: str | None = "a", **fields: Any) -> Request:
    """Return a question about consumer a and merchant m."""
    return Request(as_of, cut, {"consumer": consumer, "merchant": "m"}, fields={"merchant": "m", **fields})


def revised(fact: Fact, *later: Version) -> Fact:
    """Return a fact with further versions."""
    return Fact(fact.type, [*fact.versions, *later])


def _later(position: int, days_ago: float, fields: dict[str, Any] | None, parent: int = 0) -> Version:
    return Version(position, START - round(days_ago * DAY), parent, fields)


_AMOUNTS = [repaid(1, 9, 4), repaid(2, 5, None), repaid(3, 4, 2), repaid(4, 3, 4), repaid(5, 1, 7)]
_EDGES = [repaid_at(i, START - 7 * DAY + edge, 2**i) for i, edge in enumerate((-1, 0, 1), 1)]
_EDGES += [repaid_at(i, START - DAY + edge, 2**i) for i, edge in enumerate((-1, 0, 1), 4)]
_EDGES += [repaid_at(i, START + edge, 2**i, known=START - DAY) for i, edge in enumerate((-1, 0, 1), 7)]
_BEFORE = (-3 * DAY - 1, -3 * DAY, -DAY - 1, -1_000_001, -1_000_000, -1, 0, 1)
_KEYS = [
    sold(1, 20, 100, item="k"), sold(2, 19, 50, item="l"), sold(3, 18, 70, item="m", channel="app"),
    repaid(4, 9, 30, loan="k", due=START + 1), repaid(5, 8, 80, loan="l", due=START), repaid(6, 7, 5, loan=None),
]  # fmt: skip

EXAMPLES: dict[str, World] = {
    "empty": ([], [request(), request(consumer=None), request(consumer="never seen")]),
    "one event": ([repaid(1, 1, 5)], [request(), request(START - DAY), request(START - DAY + 1)]),
    "amounts": (_AMOUNTS, [request(), request(START - 4 * DAY), request(cut=3)]),
    "ties": (
        [repaid(3, 1, 3, loan="l"), repaid(1, 1, 1, loan="k"), repaid(2, 1, 2, loan="l"), repaid(4, 1, 1, loan="k")],
        [request(), request(cut=3), request(cut=2)],
    ),
    "equal timestamps": (
        [*(repaid(i, 1, i % 3) for i in range(1, 7)), sold(7, 1, 4), sold(8, 1, 2)],
        [request(), request(cut=4), request(START - DAY + 1)],
    ),
    "edges": (_EDGES, [request(START + edge) for edge in (-1, 0, 1)]),
    "before 1970": (
        [repaid_at(i, time, i, known=-4 * DAY) for i, time in enumerate(_BEFORE, 1)],
        [request(as_of) for as_of in (-DAY, -1, 0, 1, 2, DAY)],
    ),
    "nulls": (
        [
            repaid(1, 3, None), repaid(2, 2, None, loan="k", channel="fax"),
            sold(3, 2, None), sold(4, 1, None, channel="app"),
        ],
        [request(), request(amount=3), request(cut=1)],
    ),
    "unknown texts": (
        [repaid(i, 9 - i, i, channel=text) for i, text in enumerate(("fax", "app", "post", "ussd", "fax", None), 1)],
        [request(channel="post"), request(channel="app"), request(channel=None)],
    ),
    "late": (
        [
            repaid(1, 3, 1),
            repaid_at(2, START - 5 * DAY, 2, known=START - DAY),
            repaid_at(3, START - 4 * DAY, 4, known=START),
        ],
        [request(START - DAY - 1), request(START - DAY), request(START)],
    ),
    "corrected": (
        [
            revised(
                repaid(1, 9, 1),
                _later(2, 3, payment(START - 9 * DAY, 2)),
                _later(4, 2, payment(START - 9 * DAY, 8), parent=1),
                _later(3, 2, payment(START - 9 * DAY, 4)),
            )
        ],
        [request(), request(cut=3), request(START - 2 * DAY - 1), request(START - 3 * DAY - 1)],
    ),
    "corrected before its original": (
        [revised(repaid_at(5, START - 9 * DAY, 1, known=START - DAY), _later(2, 8, payment(START - 9 * DAY, 2)))],
        [request(), request(START - 2 * DAY), request(cut=4)],
    ),
    "retracted": (
        [revised(repaid(1, 9, 5), _later(2, 3, None)), repaid(3, 8, 1)],
        [request(), request(START - 3 * DAY), request(START - 3 * DAY - 1), request(cut=1)],
    ),
    "revived": (
        [revised(repaid(1, 9, 5), _later(2, 5, None), _later(3, 3, payment(START - 9 * DAY, 6), parent=1))],
        [request(), request(START - 4 * DAY), request(START - 6 * DAY)],
    ),
    "moved to another entity": (
        [revised(repaid(1, 9, 5, merchant="m"), _later(2, 3, payment(START - 9 * DAY, 5, consumer="b", merchant="n")))],
        [request(), request(consumer="b"), request(START - 4 * DAY), request(START - 4 * DAY, consumer="b")],
    ),
    "moved in time across as_of": (
        [
            revised(
                repaid(1, 9, 5),
                _later(2, 3, payment(START + DAY, 5)),
                _later(3, 2, payment(START - 2 * DAY, 5), parent=1),
            ),
            revised(repaid(4, 9, 7), _later(5, 3, payment(START, 7))),
        ],
        [request(), request(START + 1), request(START - 3 * DAY), request(START - 3 * DAY - 1)],
    ),
    "its own application": (
        [repaid(1, 3, 1), repaid(2, 2, 2)],
        [Request(START, 9, {"consumer": "a", "merchant": "m"}, root) for root in (-1, 1, 2)],
    ),
    "keys": (_KEYS, [request(), request(START + 1), request(cut=3)]),
    "two ways in": (
        [
            sold(1, 3, 5, referrer="a", item="k"),
            sold(2, 2, 3, consumer="b", referrer="a", channel="app"),
            sold(3, 1, 9, channel="app"),
        ],
        [request(channel="app"), request(consumer="b", channel="app"), request(channel=None)],
    ),
}  # fmt: skip

# Amounts at and beyond what is exact, and at the ends of int64.
_EXTREMES: list[list[int | None]] = [
    [2**53, -(2**53)], [2**53 + 1], [2**53 + 1, 1, -(2**53) - 1], [2**60, 2**61], [-(2**60), 2**60, None, 2**60],
    [2**63 - 1] * 3, [-(2**63) + 1] * 2, [2**63 - 1, -(2**63) + 1], [2**62, 3, 2**62], [7**20, -(7**20), 7**20],
]  # fmt: skip
BEYOND: list[World] = [
    ([repaid(i, 9 - i, amount, loan="k", channel="app") for i, amount in enumerate(amounts, 1)], [request(amount=3)])
    for amounts in _EXTREMES
]

_DECAYED = (
    2.0**-4 * 7 + 2.0**-12 * 4 + 2.0**-16 * 2 + 2.0**-36 * 4,
    2.0**-4 + 2.0**-12 + 2.0**-16 + 2.0**-20 + 2.0**-36,
)
_DAILY: dict[str, Any] = {"parameters": [DAY // 4, DAY]}  # four half-lives a day
_OWED = [
    ["measure", 0], ["measure", 1], ["subtract"], ["constant", 0.0], ["maximum"],
    ["measure", 2], ["constant", 0.0], ["equal"], ["multiply"],
]  # fmt: skip
_DUE: dict[str, Any] = {"given": [{"slot": 2, "op": ">", "comparand": 3}]}

# An example, the place of a request in it, a measure, and its number.
KNOWN: list[tuple[str, int, dict[str, Any], float | None]] = [
    ("empty", 0, measure("count"), 0.0),
    ("empty", 0, measure("mean"), None),
    ("empty", 1, measure("count"), None),
    ("empty", 2, measure("sum"), 0.0),
    ("empty", 0, measure("count", window=since_window(2)), None),
    ("one event", 0, measure("sample_std"), None),
    ("one event", 0, measure("std"), 0.0),
    ("one event", 0, measure("mean_gap"), None),
    ("one event", 1, measure("count"), 0.0),
    ("one event", 2, measure("time_since_last"), 1e-6),
    ("amounts", 0, measure("count"), 5.0),
    ("amounts", 0, measure("sum", scale=2), 0.17),
    ("amounts", 0, measure("mean"), 4.25),
    ("amounts", 0, measure("std"), math.sqrt(51) / 4),
    ("amounts", 0, measure("sample_std"), math.sqrt(51 / 12)),
    ("amounts", 0, measure("min"), 2.0),
    ("amounts", 0, measure("max", window_us=3 * DAY, offset_us=DAY), 4.0),
    ("amounts", 0, measure("first"), 4.0),
    ("amounts", 0, measure("last"), 7.0),
    ("amounts", 0, measure("nth_last", parameters=[3]), 2.0),
    ("amounts", 0, measure("nth_last", parameters=[5]), None),
    ("amounts", 0, measure("time_since_first"), 9 * 86400.0),
    ("amounts", 0, measure("time_since_last"), 86400.0),
    ("amounts", 0, measure("mean_gap"), 2 * 86400.0),
    ("amounts", 0, measure("std_gap"), math.sqrt(1.5) * 86400),
    ("amounts", 0, measure("longest_gap"), 4 * 86400.0),
    ("amounts", 0, measure("slope"), 37 / 139),  # of 4, 2, 4, 7 on days -9, -4, -3, -1
    ("amounts", 0, measure("streak"), 2.0),  # 7 and 4 are at least 3, 2 is not
    ("amounts", 0, measure("longest_streak", window=rows_window(3)), 2.0),
    ("amounts", 0, measure("longest_streak", 1), 3.0),
    ("amounts", 0, measure("decayed_sum", **_DAILY), _DECAYED[0]),
    ("amounts", 0, measure("decayed_count", **_DAILY), _DECAYED[1]),
    ("amounts", 0, measure("distinct"), 3.0),
    ("amounts", 0, measure("most_frequent"), 4.0),
    ("amounts", 0, measure("most_frequent", parameters=[2]), 2.0),  # before 7, which came later
    ("amounts", 0, measure("most_frequent", parameters=[4]), None),
    ("amounts", 0, measure("top_share", parameters=[2]), 0.75),
    ("amounts", 0, measure("entropy"), 1.5),
    ("amounts", 0, measure("quantile", parameters=[0.5]), 4.0),
    ("amounts", 0, measure("quantile", parameters=[0.25]), 3.5),
    ("amounts", 0, measure("quantile", parameters=[1]), 7.0),
    ("amounts", 0, measure("quantile_sketch", parameters=[0.25]), 3.5),
    ("amounts", 0, measure("distinct_sketch"), 2048 * math.log(2048 / 2045)),
    ("amounts", 0, measure("sum", window=rows_window(4)), 13.0),  # the null is a row
    ("amounts", 0, measure("count", window=since_window(1)), 1.0),
    ("amounts", 1, measure("sum"), 4.0),
    ("ties", 0, measure("first"), 1.0),
    ("ties", 0, measure("last"), 1.0),
    ("ties", 1, measure("last"), 3.0),
    ("ties", 0, measure("most_frequent", parameters=[2]), 2.0),
    ("ties", 0, measure("longest_gap"), 0.0),
    ("ties", 0, measure("slope"), None),
    ("ties", 0, measure("count", window=since_window(1)), 4.0),  # from the anchor's time on, whatever the order
    ("edges", 1, measure("sum", window_us=7 * DAY), 252.0),  # all at or after the edge and before as_of
    ("edges", 1, measure("sum", window_us=6 * DAY, offset_us=DAY), 28.0),
    ("edges", 1, measure("sum", offset_us=7 * DAY), 2.0),
    ("edges", 2, measure("sum", window_us=DAY), 448.0),
    ("edges", 1, measure("sum", window=calendar_window("day", 1)), 224.0),  # START is midnight where the suite asks
    ("before 1970", 3, measure("decayed_count", parameters=[DAY, DAY]), 1 + 3 / 2 + 1 / 4 + 1 / 8 + 1 / 16),
    ("before 1970", 2, measure("slope", window=rows_window(2)), None),  # both in the last second of 1969
    ("nulls", 0, measure("count"), 2.0),
    ("nulls", 0, measure("sum"), 0.0),
    ("nulls", 0, measure("last"), None),
    ("nulls", 0, measure("distinct"), 0.0),
    ("nulls", 1, measure("count", given=[{"slot": 0, "op": "!=", "comparand": 0}]), 0.0),
    ("unknown texts", 0, measure("distinct", slot=3), 3.0),
    ("unknown texts", 0, measure("most_frequent", slot=3), 2.0),
    ("unknown texts", 0, measure("distinct", slot=3, window=rows_window(1)), 0.0),
    ("late", 0, measure("sum"), 1.0),
    ("late", 1, measure("sum"), 3.0),
    ("late", 2, measure("last"), 1.0),
    ("corrected", 0, measure("sum"), 8.0),
    ("corrected", 1, measure("sum"), 4.0),
    ("corrected", 2, measure("sum"), 2.0),
    ("corrected", 3, measure("sum"), 1.0),
    ("corrected before its original", 0, measure("sum"), 2.0),
    ("corrected before its original", 1, measure("count"), 0.0),
    ("corrected before its original", 2, measure("count"), 0.0),
    ("retracted", 0, measure("sum"), 1.0),
    ("retracted", 1, measure("sum"), 1.0),
    ("retracted", 2, measure("sum"), 6.0),
    ("revived", 0, measure("sum"), 6.0),
    ("revived", 1, measure("sum"), 0.0),
    ("moved to another entity", 0, measure("count"), 0.0),
    ("moved to another entity", 1, measure("count"), 1.0),
    ("moved to another entity", 2, measure("count", 1, timeline="pair", via=["consumer", "merchant"]), 1.0),
    ("moved in time across as_of", 0, measure("sum"), 5.0),
    ("moved in time across as_of", 1, measure("sum"), 12.0),
    ("moved in time across as_of", 2, measure("count"), 0.0),
    ("moved in time across as_of", 3, measure("sum"), 12.0),
    ("its own application", 1, measure("sum"), 2.0),
    ("keys", 0, keyed("sum", inner("sum", 2), inner("sum", 0), inner("count", 5), program=_OWED), 70.0),
    ("keys", 0, keyed("count", inner("sum", 2), inner("sum", 0), inner("count", 5), program=_OWED), 3.0),
    ("keys", 0, keyed("sum", inner("sum", 0, **_DUE)), 30.0),
    ("keys", 1, keyed("sum", inner("sum", 0, **_DUE)), 0.0),
    ("keys", 0, keyed("std", inner("last", 0)), 25.0),
    ("keys", 2, keyed("max", inner("last", 0), inner("count", 2)), None),
    ("two ways in", 0, measure("sum", 2), 14.0),
    ("two ways in", 0, measure("sum", 3), 8.0),
    ("two ways in", 0, measure("streak", 3, condition=2), 0.0),
    ("two ways in", 0, measure("longest_streak", 3, condition=2), 1.0),
    ("two ways in", 1, measure("sum", 3), 0.0),
    ("two ways in", 0, measure("count", 2, given=[{"slot": 3, "op": "==", "comparand": 2}]), 1.0),
]


@cache
def many() -> Batch:
    """Return a log of one consumer with so many values that registers of a sketch run out of zeros."""
    facts = [repaid_at(i, START - i * 60_000_000, (i * i - 5000 * i) * 1009) for i in range(1, 12_001)]
    return Batch(facts, [request(cut=cut) for cut in (0, 100, 6_000, 12_000)], [facts] * 4)


def crowd(n: int, fields: Callable[[int], dict[str, Any]]) -> Batch:
    """Return n repayments of one consumer, whose fields depend on their number, and one question."""
    facts = [repaid_at(i + 1, START - (n - i) * 1000, **fields(i)) for i in range(n)]
    return Batch(facts, [request(cut=n)], [facts])


_Fields = Callable[[int], dict[str, Any]]
_DIFFERENT: _Fields = lambda i: {"amount": i * 2**40}  # noqa: E731
_LOANS: _Fields = lambda i: {"loan": f"loan {i}"}  # noqa: E731
_TWICE: list[list[Any]] = [["measure", 0], ["constant", 2], ["multiply"]]
_TWICE_IS = [*_TWICE, ["constant", 2**53 - 2], ["equal"]]

# A measure, how many facts it allows, and what they are: one more crosses a limit.
LIMITS: list[tuple[dict[str, Any], int, _Fields]] = [
    *((measure(name), 4096, _DIFFERENT) for name in ("distinct", "most_frequent", "top_share", "entropy")),
    (measure("distinct", slot=1), 4096, _LOANS),
    (measure("quantile"), 16_384, lambda i: {"amount": i % 7}),
    (keyed("count", inner("count")), 4096, _LOANS),
    (measure("sum"), 2, lambda i: {"amount": 2**52}),
    (keyed("max", inner("sum")), 2, lambda i: {"amount": 2**52, "loan": "k"}),
    (keyed("sum", inner("sum")), 1, lambda i: {"amount": 2**53 - i, "loan": f"l{i}"}),
    (keyed("max", inner("sum"), program=_TWICE), 1, lambda i: {"amount": 2**52 - 1, "loan": "k"}),
    (keyed("sum", inner("sum"), program=_TWICE_IS), 1, lambda i: {"amount": 2**52 - 1, "loan": "k"}),
    *((measure(name), 1, lambda i: {"amount": 2**53 + i}) for name in ("last", "max")),
    (measure("nth_last", parameters=[1]), 1, lambda i: {"amount": 2**53 + i}),
    (measure("most_frequent", parameters=[2]), 1, lambda i: {"amount": 2**53 + i}),
    (measure("quantile", parameters=[1]), 1, lambda i: {"amount": 2**53 + i}),
    *((measure(name), 2, lambda i: {"amount": 2**62}) for name in ("std", "sample_std")),
]
