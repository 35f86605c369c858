"""Definitions of sequences: what they compile to, and what is refused where it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.features.lake_world import (
    PLAN,
    REGISTRY,
    History,
    Purchase,
    Repayment,
    Sale,
    Transfer,
    append,
    definitions,
    lake_of,
    new_log,
    plan_of,
    requests_at,
)

from obligor.errors import BadInput, DefinitionError, NotFound
from obligor.events.schema import Registry
from obligor.features import (
    Boolean,
    Category,
    Decimal,
    Entity,
    Event,
    Integer,
    Plan,
    Sequence,
    Text,
    application,
    compile_plan,
    delay,
)
from obligor.features.backfill import backfill
from obligor.features.evaluate import evaluate
from obligor.features.expiry import reaches, state_hash
from obligor.features.narrowing import narrowed, sequence_alone, without_sequences
from obligor.features.requests import field_names, key_names
from obligor.features.sequence import Entering, sequences
from obligor.features.sequence_spec import BUILT_IN
from obligor.features.timelines import build_timelines


class Login(Event):
    consumer = Entity()
    device = Entity()
    channel = Category("app", "web")
    trusted = Boolean(optional=True)
    score = Decimal(2)
    attempts = Integer()
    note = Text(optional=True)
    mood = Category()


NAIRA = Sale.by("consumer").where(Sale.price.currency_is("NGN"))
ALL = Registry([*REGISTRY, Login])
FEATURES = {"repaid": Repayment.by("consumer").sum("amount", "2d"), "sold": Sale.by("merchant").count("9d")}


def compiled(**definitions: Sequence) -> Plan:
    return compile_plan(FEATURES, ALL, Purchase, sequences=definitions)


def fields(plan: Plan) -> dict[str, tuple[str, bool, list[tuple[int, str, str, int]]]]:
    """Return kind, slow and sources (selection, column, coding, scale) of a plan's one sequence by field."""
    [spec] = plan.sequences
    timeline = plan.timelines[spec.timeline]
    return {
        field.name: (
            field.kind,
            field.slow,
            [
                (one.selection, slot.field, slot.coding, one.scale)
                for one in field.sources
                for slot in [timeline.fields[timeline.selections[one.selection].event][one.slot]]
            ],
        )
        for field in spec.fields
    }


def test_all_fields_that_may_enter_by_their_kinds() -> None:
    plan = compiled(history=Sequence.by("consumer", [Login, Repayment, Purchase]))
    [spec] = plan.sequences
    timeline = plan.timelines["consumer"]
    assert [timeline.selections[place].event for place in spec.selections] == ["login", "repayment", "purchase"]
    assert (spec.name, spec.timeline, spec.via, spec.limit) == ("history", "consumer", ("consumer",), None)
    assert timeline.selections[spec.application].event == "purchase"
    login, repayment, purchase = spec.selections
    assert fields(plan) == {
        "login.device": ("category", True, [(login, "device", "hash", 0)]),
        "login.channel": ("category", False, [(login, "channel", "vocabulary", 0)]),
        "login.trusted": ("category", False, [(login, "trusted", "integer", 0)]),
        "login.score": ("number", False, [(login, "score", "integer", 2)]),
        "login.attempts": ("number", False, [(login, "attempts", "integer", 0)]),
        "login.mood": ("category", False, [(login, "mood", "hash", 0)]),
        "repayment.loan": ("category", True, [(repayment, "loan", "hash", 0)]),
        "repayment.amount": ("magnitude", False, [(repayment, "amount", "integer", 2)]),
        "repayment.channel": ("category", False, [(repayment, "channel", "vocabulary", 0)]),
        "repayment.due_at.delay": ("magnitude", False, [(repayment, "due_at.delay", "integer", 6)]),
        "purchase.merchant": ("category", True, [(purchase, "merchant", "hash", 0)]),
        "purchase.amount": ("magnitude", False, [(purchase, "amount", "integer", 2)]),
    }


def test_the_application_is_part_of_every_sequence() -> None:
    named = compiled(history=Sequence.by("consumer", {Repayment: ["amount"], Purchase: ["amount"]}))
    added = compiled(history=Sequence.by("consumer", {Repayment: ["amount"]}))
    assert [one.name for one in named.sequences[0].fields] == ["repayment.amount", "purchase.amount"]
    assert [one.name for one in added.sequences[0].fields][1:] == ["purchase.merchant", "purchase.amount"]
    assert field_names(named) == ["amount"]
    assert field_names(added) == ["merchant", "amount"]
    assert key_names(named) == ["consumer", "merchant"]


def test_shared_fields_are_one_and_slow_ones_are_marked() -> None:
    plan = compiled(
        history=Sequence.by(
            "consumer",
            {Login: ["channel", "device"], Repayment: ["channel", "amount"], Purchase: ["amount", "merchant"]},
            shared=["channel", "amount"], slow=["device"], limit=100,
        )
    )  # fmt: skip
    login, repayment, purchase = plan.sequences[0].selections
    # Their declared values differ, so that only the text says which is which.
    assert fields(plan) == {
        "channel": ("category", False, [(login, "channel", "hash", 0), (repayment, "channel", "hash", 0)]),
        "login.device": ("category", True, [(login, "device", "hash", 0)]),
        "amount": ("magnitude", False, [(repayment, "amount", "integer", 2), (purchase, "amount", "integer", 2)]),
        "purchase.merchant": ("category", False, [(purchase, "merchant", "hash", 0)]),
    }
    assert plan.sequences[0].limit == 100


def test_streams_say_which_key_and_which_facts() -> None:
    plan = compiled(history=Sequence.by("consumer", {Transfer.by("sender"): None, Transfer.by("receiver"): ["amount"],
                                                     NAIRA: ["price"]}))  # fmt: skip
    [spec] = plan.sequences
    selections = [plan.timelines["consumer"].selections[place] for place in spec.selections]
    assert [(one.event, one.by) for one in selections] == [
        ("transfer", ("sender",)), ("transfer", ("receiver",)), ("sale", ("consumer",)), ("purchase", ("consumer",)),
    ]  # fmt: skip
    assert selections[2].where == Sale.price.currency_is("NGN").to_json()
    assert [len(field.sources) for field in spec.fields[:3]] == [1, 2, 1]


def test_delays_and_fields_may_be_named_as_such() -> None:
    plan = compiled(history=Sequence.by("consumer", {Repayment: [delay(Repayment.due_at), Repayment.amount]}))
    by_name = compiled(history=Sequence.by("consumer", {Repayment: ["due_at", "amount"]}))
    assert plan.hash == by_name.hash


def test_several_entities_together_have_a_sequence() -> None:
    plan = compiled(pair=Sequence.by(["merchant", "consumer"], {NAIRA_BOTH: ["items"]}))
    [spec] = plan.sequences
    assert (spec.timeline, spec.via) == ("consumer x merchant", ("consumer", "merchant"))
    said = compiled(pair=Sequence.by(["merchant", "consumer"], {NAIRA_BOTH: ["items"]}, via=["merchant", "consumer"]))
    assert said.hash == plan.hash


NAIRA_BOTH = Sale.by(["consumer", "merchant"])


@pytest.mark.parametrize(
    ("events", "options", "message"),
    [
        ({Repayment: ["amuont"]}, {}, "Repayment has no field 'amuont'; did you mean 'amount'?"),
        ({Repayment: ["phone"]}, {}, "Repayment.phone is personal: it never enters features"),
        ({Sale: ["gender"]}, {}, "Sale.gender is protected: it never enters features"),
        ({Login: ["note"]}, {}, "Login.note is a text, which no token is made of"),
        ({Login: ["consumer"]}, {}, "Login.consumer says whose sequence it is"),
        ({Login: [Repayment.amount]}, {}, "expected fields of Login, got Money"),
        ({Login: "channel"}, {}, "expected a list of names, got 'channel'"),
        ({Login: {"channel"}}, {}, r"expected a list of fields of Login, whose order a plan keeps, got {'channel'}"),
        ({Login, Repayment}, {}, "expected a list of event types, whose order a plan keeps, got {<class"),
        ([Sale], {}, r"Sale.price mixes currencies \(NGN, KES\); choose one with"),
        ([Transfer], {}, r"choose with Transfer.by\('sender'\) or Transfer.by\('receiver'\)"),
        ([Sale.by("merchant")], {}, "expected events of consumer, got those of merchant"),
        ([Sale.by("consumer").where(Sale.merchant == application.merchant)], {}, "without the application"),
        ([Sale.by("consumer", via="consumer")], {}, "say via= of the sequence"),
        (["repayment"], {}, "expected event types or streams"),
        ([], {}, "expected an entity type and event types"),
        ([Login], {"limit": 0}, "a limit of at least one event"),
        ([Login], {"via": ["consumer", "merchant"]}, "expected 1 fields in via, got 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_where_it_is_written(events: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Sequence.by("consumer", events, **options)


def test_a_modules_sequences_are_found() -> None:
    history = Sequence.by("consumer", [Login])
    assert sequences({"history": history, "_helper": history, "other": 5}) == {"history": history}
    assert repr(history) == "Sequence(consumer: login)"


def test_a_plan_without_sequences_is_as_it_was() -> None:
    plain, whole = plan_of(FEATURES), compiled(history=Sequence.by("consumer", [Login]))
    assert plain.data["format"] == 2
    assert "sequences" not in plain.data
    assert plain.sequences == ()
    assert without_sequences(plain) is plain
    assert without_sequences(whole).hash == plain.hash
    assert narrowed(whole, whole.names).hash == plain.hash
    assert Plan.load(json.loads(whole.canonical)).hash == whole.hash
    assert compile_plan(FEATURES, ALL, Purchase).hash == plain.hash
    with pytest.raises(NotFound, match="no sequence 'histori'; did you mean 'history'"):
        whole.sequence("histori")
    with pytest.raises(NotFound, match="the plan has none"):
        plain.sequence("history")


def test_features_are_the_same_beside_a_sequence(tmp_path: Path) -> None:
    history = History(np.random.default_rng(2))
    log = new_log(tmp_path)
    for _ in range(4):
        append(log, history.chunk(150), history.tick())
    events: list[Entering] = [Repayment, NAIRA, Transfer.by("sender")]
    sequence = {"history": Sequence.by("consumer", events)}
    whole = compile_plan(definitions(), REGISTRY, Purchase, sequences=sequence)
    asked = requests_at(log, np.random.default_rng(5), 200)
    asked = replace(asked, fields=asked.fields.append_column("merchant", asked.entities["merchant"]))
    expected = evaluate(PLAN, build_timelines(PLAN, log, log.cut()), asked)
    assert evaluate(whole, build_timelines(whole, log, log.cut()), asked).tobytes() == expected.tobytes()
    assert backfill(whole, lake_of(tmp_path, log, whole), asked).tobytes() == expected.tobytes()


def test_a_sequence_reaches_back_to_the_beginning() -> None:
    plain, whole = plan_of(FEATURES), compiled(history=Sequence.by("consumer", {Repayment: ["amount"]}))
    assert set(reaches(plain)) == {"consumer", "merchant"}
    assert set(reaches(whole)) == {"merchant"}
    assert state_hash(whole) != state_hash(plain)


def test_a_sequence_alone_is_the_same_whatever_stands_beside_it() -> None:
    history = Sequence.by("consumer", [Login, NAIRA, Transfer.by("sender")])
    whole = compiled(history=history, other=Sequence.by("consumer", {Repayment: ["loan"]}))
    by_itself = compile_plan({"sold": Sale.by("merchant").count("9d")}, ALL, Purchase, sequences={"history": history})
    alone = sequence_alone(whole, "history")
    assert alone.timelines.keys() == {"consumer"}
    assert alone.features == ()
    assert [one.event for one in alone.timelines["consumer"].selections] == ["login", "sale", "transfer", "purchase"]
    assert sequence_alone(alone, "history").hash == alone.hash
    assert fields(alone) == fields(sequence_alone(by_itself, "history"))
    assert alone.hash == sequence_alone(by_itself, "history").hash, "encoders learnt on it go on fitting"
    first = {"moods": Login.by("consumer").where(Login.attempts > 2).last("mood", values=["a"]) == "a"}
    other = Sequence.by("consumer", {Transfer.by("sender"): ["amount"], NAIRA: ["items"], Login: ["mood", "score"]})
    beside = compile_plan(first, ALL, Purchase, sequences={"a": other, "history": history})
    assert sequence_alone(beside, "history").hash == alone.hash


def _break(path: str, value: object) -> dict[str, Any]:
    data: Any = json.loads(compiled(history=Sequence.by("consumer", [Repayment])).canonical)
    at = data["sequences"][0] if path else data
    *steps, last = path.split(".") if path else ["sequences"]
    for step in steps:
        at = at[int(step) if step.isdigit() else step]
    at[int(last) if last.isdigit() else last] = value
    found: dict[str, Any] = data
    return found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("", [], r"\$\.sequences: expected one or more"),
        ("timeline", "nobody", "no timeline 'nobody'"),
        ("via", [], "expected 1 fields"),
        ("selections", [0, 0], "expected different ones of 0 to"),
        ("selections", [0, 9], "expected different ones of 0 to"),
        ("application", 0, "expected a selection of 'purchase' among its own, got 0"),
        ("limit", 0, "expected at least one row, got 0"),
        ("fields.0.name", "gap", "two fields are named 'gap'"),
        ("fields.0.sources", [], r"\$\.sequences\[0\]\.fields\[0\]\.sources: expected one or more"),
        ("fields.0.sources.0.selection", 7, "selection 7 is none of the sequence's"),
        ("fields.0.sources.0.slot", 99, "no slot 99"),
        ("fields.0.kind", "number", "holds no number"),
        ("fields.0.sources.0.scale", -1, "a scale of 0 or more"),
    ],
)  # fmt: skip
def test_a_sequence_that_points_nowhere_is_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Plan.load(_break(path, value))


def test_built_in_fields_come_first() -> None:
    assert BUILT_IN == ("type", "gap", "hour", "weekday", "day_of_month")
