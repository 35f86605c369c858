"""Groups of events: what their words mean in tokens, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tests.sequences import twin

from obligor.errors import IntegrityError
from obligor.events.schema import Registry
from obligor.features import (
    Boolean,
    Category,
    Entity,
    Event,
    Money,
    Sequence,
    compile_plan,
)
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.sequences.groups import NO_GROUP, Groups
from obligor.sequences.head import EventGroup
from obligor.sequences.tokens import Tokenizer

PLAN = twin.plan()
TOKENIZER = Tokenizer.load(twin.tokenizer_data(sequence_alone(PLAN, twin.NAME).hash))
CHANNEL, MERCHANT = TOKENIZER.names.index("channel"), TOKENIZER.names.index("merchant")


def groups(named: dict[str, list[str]], plan: Plan = PLAN, tokenizer: Tokenizer = TOKENIZER) -> Groups:
    """Return groups by reason."""
    own = [EventGroup(reason=reason, events=tuple(events)) for reason, events in named.items()]
    return Groups.of(own, plan, plan.sequences[0].name, tokenizer)


def places(found: Groups, *tokens: dict[int, int]) -> list[int]:
    """Return the group of each token, of which some fields' codes are given."""
    codes = np.zeros((len(tokens), len(TOKENIZER.fields)), np.int32)
    for i, token in enumerate(tokens):
        for field, code in token.items():
            codes[i, field] = code
    return [int(place) for place in found.of_events(codes)]


def test_an_event_is_in_the_group_that_names_it() -> None:
    # codes of types: 2 and 4 are repayments, 3 is a sale, 1 none that the tokenizer knows
    tokens = [{0: kind, CHANNEL: channel} for kind in (1, 2, 3, 4) for channel in (1, 2)]
    found = groups({"USSD": ["repayment.channel=ussd", "sale.channel=ussd"]})
    assert places(found, *tokens) == [NO_GROUP, NO_GROUP, NO_GROUP, 0, NO_GROUP, 0, NO_GROUP, 0]
    found = groups({"SOLD": ["sale"], "PAID": ["repayment"]})
    assert found.reasons == ("SOLD", "PAID")
    assert places(found, *tokens) == [NO_GROUP, NO_GROUP, 1, 1, 0, 0, 1, 1]
    found = groups({"USSD": ["repayment.channel=ussd"], "PAID": ["repayment"]})
    assert places(found, *tokens) == [NO_GROUP, NO_GROUP, 1, 0, NO_GROUP, NO_GROUP, 1, 0]
    assert places(groups({}), *tokens) == [NO_GROUP] * 8


def test_a_free_text_is_found_by_its_hash_and_what_is_unknown_is_nowhere() -> None:
    found = groups(
        {"M": ["repayment.merchant=m"], "RARE": ["repayment.merchant=somebody"], "APP": ["sale.channel=app"]}
    )
    assert places(found, {0: 2, MERCHANT: 2}, {0: 2, MERCHANT: 1}, {0: 3, MERCHANT: 2}) == [0, NO_GROUP, NO_GROUP]
    assert places(found, {0: 3, CHANNEL: 1}, {0: 3, CHANNEL: 2}) == [NO_GROUP, NO_GROUP]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("repaymnet", "a group names 'repaymnet', which is no event of 'history'"),
        ("repayment.channel", "which is no event"),
        ("repayment.chanel=ussd", "but 'history' reads no such category"),
        ("repayment.amount=5", "reads no such category"),
        ("repayment.channel=usd", "of which the values are app, ussd"),
    ],
)
def test_what_the_plan_does_not_have_is_refused(events: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        groups({"A": [events]})


class Order(Event, application=True):
    """Somebody orders."""

    consumer = Entity()
    express = Boolean()
    cause = Category("gift", "need", optional=True)


class BankTransaction(Event, name="bank"):
    """Something on an account."""

    consumer = Entity()
    amount = Money("EUR")


def test_truths_and_names_of_their_own() -> None:
    plan = compile_plan(
        {},
        Registry([Order, BankTransaction]),
        Order,
        sequences={"history": Sequence.by("consumer", [Order, BankTransaction])},
    )
    spec, fields = plan.sequences[0], []
    for name in ("type", "gap", "hour", "weekday", "day_of_month", *(one.name for one in spec.fields)):
        number = name in ("gap", "bank.amount")
        fields.append(
            {"name": name, "kind": "piecewise" if number else "category", "size": 3 if number else 4, "slow": False,
             "values": None if number else [0, 1], "edges": [0.0, 1.0] if number else None}
        )  # fmt: skip
    definition = sequence_alone(plan, "history").hash
    tokenizer = Tokenizer.load({"format": 1, "definition": definition, "fields": fields})
    found = groups({"FAST": ["order.express=true"], "GIFT": ["order.cause=gift"], "BANK": ["bank"]}, plan, tokenizer)
    express, cause = (tokenizer.names.index(name) for name in ("order.express", "order.cause"))
    assert places(found, {0: 2, express: 3}, {0: 2, express: 2, cause: 2}, {0: 3}, {0: 2}) == [0, 1, 2, NO_GROUP]
    with pytest.raises(IntegrityError, match="of which the values are false, true"):
        groups({"FAST": ["order.express=yes"]}, plan, tokenizer)
