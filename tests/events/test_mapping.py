"""Mappings: what is wrong with one is said when it is made, all at once; TOML and Python agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.events.edge import REGISTRY, Everything, Repayment

from obligor.errors import BadInput, DefinitionError
from obligor.events.mapping import Mapping, columns, field, load_mappings, row

TOML = """
[[mapping]]
event = "repayment"
id = { columns = ["loan_no", "seq"], prefix = "paid" }
event_time = "paid_at"
zone = { paid_at = "Africa/Lagos" }
lag = { booked_at = "1d" }
units = { amount = "major" }
nulls = ["NA"]
skip_null = ["paid_at"]
where = { status = "paid" }
ambiguous = "earliest"
file = "paid*.csv"

[mapping.columns]
consumer = "customer"
loan = "loan_no"

[mapping.constants]
channel = "app"

[[mapping]]
event = "repayment"
id = "row"

[[mapping]]
event = "repayment"
id = { field = "event_id" }
values = { channel = { A = "app" } }
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text)
    return path


def test_toml_gives_the_mappings_of_python(tmp_path: Path) -> None:
    assert load_mappings(_file(tmp_path, TOML), REGISTRY) == [
        Mapping(
            event=Repayment,
            id=columns("loan_no", "seq", prefix="paid"),
            event_time="paid_at",
            zone={"paid_at": "Africa/Lagos"},
            lag={"booked_at": "1d"},
            units={"amount": "major"},
            nulls=["NA"],
            skip_null=["paid_at"],
            where={"status": "paid"},
            ambiguous="earliest",
            file="paid*.csv",
            columns={"consumer": "customer", "loan": "loan_no"},
            constants={"channel": "app"},
        ),
        Mapping(event=Repayment, id=row),
        Mapping(event=Repayment, id=field("event_id"), values={"channel": {"A": "app"}}),
    ]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"columns": {"amuont": "a"}}, "$.columns.amuont: "),
    ({"columns": {"amuont": "a"}}, "has no field 'amuont'; did you mean 'amount'"),
    ({"constants": {"amount": -5}}, "non-negative integer of minor units, got -5"),
    ({"constants": {"event_time": "2026-01-01"}}, "with a zone"),
    ({"constants": {"amount": 5}, "columns": {"amount": "a"}}, "is mapped to column 'a' as well"),
    ({"units": {"amount": "cents"}}, "expected one of minor, major, got 'cents'"),
    ({"units": {"event_time": "major"}}, "expected one of s, ms, us, ns, got 'major'"),
    ({"units": {"channel": "major"}}, "a unit is for money and timestamps"),
    ({"currencies": {"channel": "ccy"}}, "channel is no money"),
    ({"zone": "Africa/Lagoss"}, "did you mean 'Africa/Lagos'"),
    ({"zone": {"a": "Nowhere/Land"}}, "unknown time zone 'Nowhere/Land'"),
    ({"lag": "1y"}, "expected a length such as"),
    ({"lag": {"a": "1d", "b": "1d"}}, "expected one column with its lag, got ['a', 'b']"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=str)
def test_a_wrong_mapping_is_refused_when_it_is_made(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Mapping(event=Repayment, id=row, **change)
    assert message in str(caught.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        Mapping(event=Repayment, id=row, columns={"x": "a"}, units={"amount": "cents"}, zone="Nowhere/Land")
    assert len(caught.value.problems) == 3


def test_an_id_needs_columns() -> None:
    with pytest.raises(DefinitionError, match="at least one column"):
        columns()


def test_a_mapping_knows_what_it_reads() -> None:
    mapping = Mapping(
        event=Everything, id=columns("a"), event_time="t", lag={"k": "1h"}, currencies={"price": "ccy"}, where={"w": 1}
    )
    assert set(mapping.source_columns()) == {"a", "t", "k", "ccy", "w"}
    assert mapping.lag_of() == ("k", 3_600_000_000)
    assert Mapping(event=Repayment, id=row).lag_of() == (None, 3_600_000_000)
    assert Mapping(event=Repayment, id=row, lag="2h").lag_of() == (None, 7_200_000_000)
    assert Mapping(event=Repayment, id=row, constants={"event_time": "2026-01-01T00:00:00Z"}).source_columns() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mapping = 5", "expected one or more [[mapping]] tables"),
        ("", "expected one or more [[mapping]] tables"),
        ("[[mapping]", "is not TOML"),
        ("[[mapping]]\nevent = 'repayment'\nid = 'row'\nextra = 1", "$.mapping[0].extra: unknown key"),
        ("[[mapping]]\nid = 'row'", "$.mapping[0].event: missing"),
        ("[[mapping]]\nevent = 'repayment'", "$.mapping[0].id: missing"),
        ("[[mapping]]\nevent = 'repaymnet'\nid = 'row'", "did you mean 'repayment'"),
        ("[[mapping]]\nevent = 'loan_application_decided'\nid = 'row'", "only the platform appends"),
        ("[[mapping]]\nevent = 'repayment'\nid = 'rows'", "got 'rows'"),
        ("[[mapping]]\nevent = 'repayment'\nid = { columns = [] }", "expected id ="),
        ("[[mapping]]\nevent = 'repayment'\nid = 'row'\nlag = 5", "got `int`"),
        ("[[mapping]]\nevent = 'repayment'\nid = 'row'\nambiguous = 'first'", "Invalid enum value 'first'"),
        ("[[mapping]]\nevent = 'repayment'\nid = 'row'\ncolumns = { amount = 5 }", "Expected `str`, got `int`"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((BadInput, DefinitionError)) as caught:
        load_mappings(_file(tmp_path, text), REGISTRY)
    assert message in str(caught.value)


def test_a_mapping_takes_the_files_that_it_names() -> None:
    one = Mapping(event=Repayment, id=row, file="paid*.csv")
    assert [one.takes(name) for name in ("paid_1.csv", "open.csv")] == [True, False]
    assert Mapping(event=Repayment, id=row).takes("anything")
