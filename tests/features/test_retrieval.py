"""Retrieval: what people are told is what a decision at that cut and as_of was taken on, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.decisions import desk as lending
from tests.decisions.shop import DAY, HOUR, PLAN, REGISTRY, START, Desk, Purchase, run, stream

from obligor.decisions.answers import moment
from obligor.decisions.asked import decided_questions
from obligor.errors import BadInput, LimitError, NotFound
from obligor.events.log import EventLog
from obligor.features.missing import REASONS
from obligor.features.online import evaluate_one
from obligor.features.plan import FeatureSpec
from obligor.features.retrieval import PREFIX, Retrieval
from obligor.features.typed import UNKNOWN
from obligor.stores.sqlite import SQLiteStore

FRAMES: dict[str, Callable[[pa.Table], Any]] = {
    "arrow": lambda table: table,
    "pandas": lambda table: table.to_pandas(),
    "polars": pl.from_arrow,
    "duckdb": lambda table: duckdb.connect().from_arrow(table),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A shop with a history; its decisions are in `decided`."""
    desk = Desk(tmp_path_factory.mktemp("shop"))
    run(desk, list(stream(5, 400)))
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def retrieval(shop: Desk) -> Retrieval:
    return retrieval_of(shop)


def retrieval_of(desk: Desk) -> Retrieval:
    return Retrieval(
        PLAN, Purchase, lambda: EventLog.open(desk.folder / "log", REGISTRY, read_only=True, store=SQLiteStore)
    )


def arrow(frame: Any) -> pa.Table:
    """Return any frame as Arrow."""
    if isinstance(frame, pd.DataFrame):
        return pa.Table.from_pandas(frame, preserve_index=False)
    return frame if isinstance(frame, pa.Table) else frame.to_arrow() if isinstance(frame, pl.DataFrame) else (
        frame.to_arrow_table()
    )  # fmt: skip


def numbers(spec: FeatureSpec, column: pa.ChunkedArray) -> list[float | None]:
    """Return a typed column as the numbers that it stands for."""
    values = column.to_pylist()
    if spec.type == "category":
        known = [*(spec.values or ()), UNKNOWN]
        return [None if value is None else float(known.index(value)) for value in values]
    return [None if value is None else float(value) for value in values]


def bits(value: float | None) -> bytes | None:
    return None if value is None or value != value else np.float64(value).tobytes()


def rows_of(frame: Any) -> list[list[bytes | None]]:
    """Return the features of each row as bits."""
    table = arrow(frame)
    columns = [numbers(spec, table[PREFIX + spec.name]) for spec in PLAN.features]
    return [[bits(value) for value in row] for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("kind", FRAMES)
def test_a_recorded_decision_asked_again_is_what_it_was_taken_on(shop: Desk, retrieval: Retrieval, kind: str) -> None:
    questions = decided_questions(shop.log, Purchase)
    wanted = [[bits(value) for value in record["features"]] for record in shop.decided]
    assert len(wanted) > 100
    assert rows_of(retrieval.at(FRAMES[kind](questions), cut="cut")) == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.set_column(
            1, "as_of", pa.array([value - timedelta(minutes=50) for value in table["as_of"].to_pylist()])
        ),
        lambda table: table.set_column(2, "cut", pa.array([value - 9 for value in table["cut"].to_pylist()])),
        lambda table: table.take(pa.array(range(table.num_rows))[::-1]),
    ],
    ids=["as_of", "cut", "order"],
)
def test_what_is_asked_wrongly_is_not_the_same(
    shop: Desk, retrieval: Retrieval, change: Callable[[pa.Table], pa.Table]
) -> None:
    wanted = [[bits(value) for value in record["features"]] for record in shop.decided][50:]
    questions = decided_questions(shop.log, Purchase).slice(50)
    assert rows_of(retrieval.at(questions, cut="cut")) == wanted
    assert rows_of(retrieval.at(change(questions), cut="cut")) != wanted


def test_an_application_is_not_among_what_it_sees_where_it_is_named(tmp_path: Path) -> None:
    desk = lending.Desk(tmp_path, lending.desk_bundle(tmp_path / "bundles"))
    for number in range(6):
        desk.decide(number, consumer=f"c-{number % 2}")
    plan = desk.bundle.plan
    retrieval = Retrieval(
        plan,
        lending.LoanApplication,
        lambda: EventLog.open(tmp_path / "log", lending.REGISTRY, read_only=True, store=SQLiteStore),
    )
    questions = decided_questions(desk.log, lending.LoanApplication)
    decided = [json.loads(row.record)["features"] for row in desk.log.decisions()]
    for name, asked in (("event_id", questions), ("id", questions.rename_columns({"event_id": "id"}))):
        found = retrieval.at(asked, cut="cut", application=name)
        rows = zip(*(numbers(spec, found[PREFIX + spec.name]) for spec in plan.features), strict=True)
        assert [list(row) for row in rows] == decided
    assert retrieval.at(questions, cut="cut")["feature.asked_before"].to_pylist() == [0, 0, 1, 1, 2, 2]
    unnamed = retrieval.at(questions.drop_columns("event_id"), cut="cut")["feature.asked_before"].to_pylist()
    assert unnamed == [1, 1, 2, 2, 3, 3], "it counts itself"
    desk.close()


def test_any_moment_since_the_last_event_is_what_the_online_state_says(shop: Desk, retrieval: Retrieval) -> None:
    asked: list[dict[str, Any]] = [
        {"consumer": f"c-{i % 14}", "merchant": f"m-{i % 5}" if i % 7 else None, "amount": 1000 * i} for i in range(42)
    ]
    for later in (0, HOUR, 40 * DAY):
        as_of = shop.log.last_known_time + 1 + later
        found = rows_of(retrieval.at(pa.Table.from_pylist(asked), moment(as_of)))
        with shop.state.begin() as staged:
            for row, one in zip(found, asked, strict=True):
                keys = {name: one[name] for name in ("consumer", "merchant")}
                online = evaluate_one(PLAN, staged, as_of, -1, keys, one)
                assert row == [bits(value) for value in online.tolist()]


@cache
def _alone(retrieval: Retrieval, row: tuple[tuple[str, Any], ...], cut: int) -> list[bytes | None]:
    """One question, asked alone."""
    return rows_of(retrieval.at(_table([dict(row)]), cut=cut))[0]


SCHEMA = pa.schema(
    [("event_id", pa.string()), ("consumer", pa.string()), ("merchant", pa.string()), ("amount", pa.int64()),
     ("as_of", pa.timestamp("us", "UTC"))]
)  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


_ROWS = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from([None, "e-5-0", *(f"e-5-{i}" for i in range(0, 400, 25)), "of nobody"]),
        "consumer": st.sampled_from([*(f"c-{i}" for i in range(12)), "nobody", "", None]).filter(lambda one: one != ""),
        "merchant": st.sampled_from(["m-0", "m-1", "nowhere", None]),
        "amount": st.sampled_from([0, 5_000, 150_000, None]),
        "as_of": st.sampled_from([START - 400 * DAY, START + 3 * DAY, START + 15 * DAY, START + 33 * DAY]).map(
            lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
        ),
    }
)


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pool=st.lists(_ROWS, min_size=1, max_size=6),
    order=st.lists(st.integers(0, 5), max_size=12),
    cut=st.sampled_from([0, 120, 400]),
    kind=st.sampled_from(list(FRAMES)),
)
def test_a_row_s_answer_depends_on_nothing_but_the_row(
    retrieval: Retrieval, pool: list[dict[str, Any]], order: list[int], cut: int, kind: str
) -> None:
    rows = [pool[i % len(pool)] for i in order]  # in any order, some twice, perhaps none
    questions = FRAMES[kind](_table(rows))
    found = retrieval.at(questions, cut=cut)
    assert type(found) is type(questions)
    assert rows_of(found) == [_alone(retrieval, tuple(row.items()), cut) for row in rows]
    kept = arrow(found).select(SCHEMA.names).to_pylist()
    assert kept == arrow(questions).to_pylist(), "the question's columns stay as they came"


def test_pandas_keeps_its_index_and_types_do_not_depend_on_what_is_missing(retrieval: Retrieval) -> None:
    rows = [{"consumer": f"c-{i}", "merchant": None, "amount": 9} for i in range(3)]
    questions = pd.DataFrame(rows, index=["x", "y", "x"])
    for part in (questions, questions.head(0)):
        found = retrieval.at(part, datetime.fromtimestamp((START + 20 * DAY) / 1e6, UTC))
        assert list(found.index) == list(part.index)
        assert str(found["feature.repaid_30d"].dtype) == "Int64"
        assert str(found["feature.mean_paid"].dtype) == "float64"
        assert list(found.columns[:3]) == ["consumer", "merchant", "amount"]
    assert len(found) == 0


@pytest.mark.parametrize(
    "questions",
    [
        pd.DataFrame({name: [] for name in SCHEMA.names}),
        pd.DataFrame({name: pd.Series([], dtype="float64") for name in SCHEMA.names}),
        pd.DataFrame([], columns=SCHEMA.names),
        pl.DataFrame({name: pl.Series([], dtype=pl.Float64) for name in SCHEMA.names}),
        pa.table({name: pa.array([], pa.float64()) for name in SCHEMA.names}),
    ],
)
def test_no_questions_have_no_answers_whatever_types_their_columns_have(retrieval: Retrieval, questions: Any) -> None:
    found = retrieval.at(questions)
    assert type(found) is type(questions)
    assert arrow(found).num_rows == 0
    asked = retrieval.at(pa.table({"consumer": ["c-1"], "merchant": ["m-1"], "amount": [5]}), moment(START)).schema
    answered = [name for name in asked.names if name.startswith("feature.")]
    assert answered == [name for name in arrow(found).column_names if name.startswith("feature.")]
    with pytest.raises(BadInput, match=r"\$\.consumer: expected a column"):
        retrieval.at(arrow(questions).select(["merchant", "amount", "as_of"]))


def test_a_scalar_moment_may_be_written_in_any_way(retrieval: Retrieval) -> None:
    questions = pa.table({"consumer": ["c-1"], "merchant": ["m-1"], "amount": [5]})
    at = datetime(2025, 7, 1, 12, 30, 1, 5, tzinfo=UTC)
    local = at.astimezone(pd.Timestamp("2025-07-01", tz="Africa/Lagos").tzinfo)
    ways: list[Any] = [at, local, "2025-07-01T12:30:01.000005Z", "2025-07-01T13:30:01.000005+01:00", pd.Timestamp(at)]
    column = [questions.append_column("t", pa.array([at], pa.timestamp(unit, "Asia/Tokyo"))) for unit in ("us", "ns")]
    column += [questions.append_column("t", pa.array(["2025-07-01T12:30:01.000005Z"]))]
    answers = [retrieval.at(questions, way) for way in ways] + [retrieval.at(one, "t") for one in column]
    assert all(rows_of(answer) == rows_of(answers[0]) for answer in answers)
    assert rows_of(retrieval.at(questions, at - timedelta(days=9))) != rows_of(answers[0])


def test_some_features_alone_and_under_plain_names(retrieval: Retrieval) -> None:
    questions = pd.DataFrame({"consumer": ["c-1"], "asked": [5]})
    found = retrieval.at(questions, moment(START + 20 * DAY), features=["late_30d", "repaid_7d"], prefix="")
    assert list(found.columns) == ["consumer", "asked", "late_30d", "repaid_7d"], "no merchant and no amount needed"
    whole = retrieval.at(questions.assign(merchant="m-1", amount=5), moment(START + 20 * DAY))
    assert found["repaid_7d"].tolist() == whole["feature.repaid_7d"].tolist()
    with pytest.raises(NotFound, match="did you mean 'late_30d'"):
        retrieval.at(questions, moment(START), features=["late30d"])
    with pytest.raises(BadInput, match=r"\$\.amount: the questions have a column of this name; give another prefix"):
        retrieval.at(questions.assign(merchant="m-1", amount=5), moment(START), prefix="")


def test_the_latest_cut_is_named_and_brings_the_same_answer_for_ever(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    run(desk, list(stream(6, 60)))
    retrieval = retrieval_of(desk)
    questions = pa.table({"consumer": [f"c-{i}" for i in range(12)], "merchant": ["m-1"] * 12, "amount": [1] * 12})
    as_of, cut = moment(START + 400 * DAY), retrieval.cut()
    then = rows_of(retrieval.at(questions, as_of))
    run(desk, list(stream(7, 60)))
    assert rows_of(retrieval.at(questions, as_of, cut=cut)) == then
    assert rows_of(retrieval.at(questions, as_of, cut={"0": cut[0]})) == then
    assert rows_of(retrieval.at(questions, as_of, cut=cut[0])) == then
    assert rows_of(retrieval.at(questions, as_of)) != then
    desk.close()


GOOD: dict[str, Any] = {
    "consumer": ["c-1", "c-2"], "merchant": ["m-1", None], "amount": [1, 2],
    "as_of": ["2025-07-01T00:00:00Z", "2025-07-02T00:00:00Z"],
}  # fmt: skip
WRONG: list[tuple[Mapping[str, Any], Mapping[str, Any], str]] = [
    ({"amount": ...}, {}, "$.amount: expected a column with the purchase's money 'amount', for amount, asked; valid: "),
    (
        {"consumer": ...},
        {},
        "$.consumer: expected a column with the purchase's entity 'consumer', for repaid_7d, repai",
    ),
    ({"amount": [1.5, 2.0]}, {}, "$[0].amount: expected a non-negative amount of NGN in whole minor units, got 1.5"),
    ({"amount": [-1, 2]}, {}, "$[0].amount: expected a non-negative amount of NGN in whole minor units, got -1"),
    (
        {"amount": [True, False]},
        {},
        "$.amount: expected integers, decimals, floats or text (money), got a column of bo",
    ),
    ({"consumer": [1.0, 2.0]}, {}, "$.consumer: expected text or integers (entity), got a column of double"),
    ({"consumer": ["c-1", "a\x1fb"]}, {}, "$[1].consumer: expected an id without control characters"),
    ({"as_of": [1, 2]}, {}, "$.as_of: expected timestamps with a time zone, got int64"),
    (
        {"as_of": [datetime(2025, 7, 1)] * 2},
        {},
        "$.as_of: expected timestamps with a time zone, got timestamp[us]; say",
    ),
    (
        {"as_of": ["2025-07-01T00:00:00", "2025-07-01"]},
        {},
        "$[1].as_of: expected a moment with a time zone, such as 20",
    ),
    (
        {"as_of": [None, "2025-07-01T00:00:00Z"]},
        {},
        "$[0].as_of: expected a moment with a time zone, such as 2026-01-31",
    ),
    (
        {"as_of": pa.array([1_700_000_000_000_000_001] * 2, pa.timestamp("ns", "UTC"))},
        {},
        "$[0].as_of: expected a moment",
    ),
    (
        {},
        {"as_of": "2025-07-01"},
        "$.as_of: expected a moment with a time zone, such as 2026-01-31T09:30:00+01:00, or the ",
    ),
    (
        {},
        {"as_of": "asof"},
        "$.as_of: expected a moment with a time zone, such as 2026-01-31T09:30:00+01:00, or the name",
    ),
    (
        {},
        {"as_of": datetime(2025, 7, 1)},
        "$.as_of: expected a moment with a time zone, such as 2026-01-31T09:30:00+01:0",
    ),
    (
        {},
        {"as_of": 7},
        "$.as_of: expected a moment with a time zone, such as 2026-01-31T09:30:00+01:00, or the name of a",
    ),
    ({}, {"as_of": pd.NaT}, "$.as_of: expected a moment with a time zone, such as 2026-01-31T09:30:00+01:00, got NaT"),
    ({}, {"cut": 10**9}, "$.cut: expected {shard: sequence} within {0: "),
    ({}, {"cut": -1}, "$.cut: expected {shard: sequence} within {0: "),
    ({}, {"cut": {1: 5}}, "$.cut: expected {shard: sequence} within {0: "),
    ({}, {"cut": {0: True}}, "$.cut: expected {shard: sequence} within {0: "),
    ({}, {"cut": "kut"}, "$.cut: expected the name of a column of sequences; valid: amount, as_of, consumer, merchant"),
    ({"kut": ["1", "x"]}, {"cut": "kut"}, "$[1].kut: expected an integer of at least 0 and at most "),
    ({"kut": [1, 10**9]}, {"cut": "kut"}, "$[1].kut: expected an integer of at least 0 and at most "),
    ({"kut": [None, "1"]}, {"cut": "kut"}, "$[0].kut: expected an integer up to "),
    ({"kut": [True, False]}, {"cut": "kut"}, "$.kut: expected integers, decimals, floats or text (integer)"),
    ({}, {"application": "id"}, "$.application: expected the name of a column of ids, got 'id'; valid: "),
    ({"event_id": [1, 2]}, {}, "$.event_id: expected the ids of applications as text, got int64"),
]


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
@pytest.mark.parametrize(("columns", "options", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_wrong_questions_say_where_what_was_expected_and_what_came(
    retrieval: Retrieval, columns: Mapping[str, Any], options: Mapping[str, Any], message: str, kind: str
) -> None:
    given = {name: column for name, column in {**GOOD, **columns}.items() if column is not ...}
    frame = pa.table(given) if kind == "arrow" else pa.table(given).to_pandas()
    with pytest.raises(BadInput) as caught:
        retrieval.at(frame, **options)
    shown = [str(problem) for problem in caught.value.problems]
    told = message if kind == "arrow" else message.replace("2025-07-01, got", "").split(", got")[0]
    assert any(one.startswith(told) for one in shown), shown


def test_everything_that_is_wrong_is_said_at_once(retrieval: Retrieval) -> None:
    table = pa.table(GOOD | {"amount": [-1, -2], "as_of": ["x", None]}).drop_columns("merchant")
    with pytest.raises(BadInput) as caught:
        retrieval.at(table, cut=-1)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["$.merchant", "$[0].amount", "$[1].amount", "$[0].as_of", "$[1].as_of", "$.cut"]
    many = pa.table({name: list(column) * 40 for name, column in (GOOD | {"amount": [-1, -1]}).items()})
    with pytest.raises(BadInput, match=r"\$\.amount: 60 more rows are wrong"):
        retrieval.at(many)


def test_a_row_beyond_a_limit_is_named_or_null(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    paid = {"type": "repayment", "consumer": "c-1", "loan": "l-1", "amount": 2**62, "event_time": moment(START - DAY)}
    desk.take([{**paid, "event_id": "p-1"}])
    retrieval = retrieval_of(desk)
    questions = pl.DataFrame({"consumer": ["c-2", "c-1"], "merchant": ["m", "m"], "amount": [5, 5]})
    as_of = moment(START + HOUR)
    with pytest.raises(LimitError) as caught:
        retrieval.at(questions, as_of)
    assert str(caught.value).startswith("$[1]: $.features.repaid_7d: an integer beyond 9007199254740992 has no exact")
    found = retrieval.at(questions, as_of, limits="null", missing=True)
    assert found["feature.repaid_7d"].to_list() == [0, None]
    assert found["feature.amount"].to_list() == [5, None], "as a decision would have none of them"
    assert found["missing.amount"].to_list() == [None, "limit crossed"]
    assert found["missing.mean_paid"].to_list() == ["no such event", "limit crossed"]
    with pytest.raises(BadInput) as wrong:
        retrieval.at(questions, as_of, features="repaid_7d", limits="nul", threads=0)  # type: ignore[arg-type]
    assert [str(problem) for problem in wrong.value.problems] == [
        "$.features: expected a list of names, such as ['repaid_7d'], got 'repaid_7d'",
        "$.limits: expected 'raise' or 'null', got 'nul'",
        "$.threads: expected at least 1 thread, got 0",
    ]
    desk.close()


def test_every_null_has_its_reason_and_nothing_else_has(shop: Desk, retrieval: Retrieval) -> None:
    questions = decided_questions(shop.log, Purchase)
    found = retrieval.at(questions, cut="cut", missing=True)
    for spec in PLAN.features:
        values, reasons = found[PREFIX + spec.name], found[f"missing.{spec.name}"]
        assert values.is_null().to_pylist() == reasons.is_valid().to_pylist()
        assert set(reasons.to_pylist()) <= {None, *REASONS[1:]}
    counts = pd.Series(found["missing.best_sale"].to_pylist()).value_counts()
    assert counts["entity not named"] == questions["merchant"].null_count > 0
