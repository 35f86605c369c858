"""Groups of events: what their words mean, which group comes first, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tests.sequences import twin

from obligor.errors import DefinitionError
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
from obligor.sequences.score import EventGroup
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


def test_an_event_is_in_the_first_group_that_names_it() -> None:
    # codes of types: 2 and 4 are repayments, 3 is a sale, 1 none that the tokenizer knows
    found = groups({"USSD": ["Repayment.channel = ussd", "sale.channel=ussd"], "PAID": ["repayment"], "SOLD": ["Sale"]})
    assert found.reasons == ("USSD", "PAID", "SOLD")
    tokens = [{0: kind, CHANNEL: channel} for kind in (1, 2, 3, 4) for channel in (1, 2)]
    assert places(found, *tokens) == [NO_GROUP, NO_GROUP, 1, 0, 2, 0, 1, 0]
    assert places(groups({}), *tokens) == [NO_GROUP] * 8


def test_a_free_text_is_found_by_its_hash_and_what_is_unknown_is_nowhere() -> None:
    found = groups(
        {"M": ["Repayment.merchant=m"], "RARE": ["Repayment.merchant=somebody"], "APP": ["Sale.channel=app"]}
    )
    assert places(found, {0: 2, MERCHANT: 2}, {0: 2, MERCHANT: 1}, {0: 3, MERCHANT: 2}) == [0, NO_GROUP, NO_GROUP]
    assert places(found, {0: 3, CHANNEL: 1}, {0: 3, CHANNEL: 2}) == [NO_GROUP, NO_GROUP]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"A": ["Repaymnet"]}, r"\$\.groups\.A\[0\]: no 'Repaymnet' is in 'history'; did you mean 'repayment'\?"),
        ({"A": ["Repayment.chanel=ussd"]}, r"repayment has no category 'chanel'.*did you mean 'channel'\?"),
        ({"A": ["Repayment.amount=5"]}, r"repayment has no category 'amount' in the sequence"),
        ({"A": ["Repayment.channel=usd"]}, r"repayment\.channel is never 'usd'; did you mean 'ussd'\?"),
        ({"A": ["Repayment.channel"]}, r"expected an event such as 'Payment' or 'Payment\.cause=late'"),
        ({"A": ["Repayment=ussd"]}, r"expected an event such as"),
        ({"A": [""]}, r"expected an event such as"),
        ({"A": []}, r"\$\.groups\.A: expected events"),
        ({"A": ["Repayment"], "B": ["repayment.channel=ussd"]}, r"\$\.groups\.B\[0\]: .*put what is special first"),
        ({"A": ["Repayment", "Repayment"]}, r"\$\.groups\.A\[1\]: .*is named before it"),
        ({str(i): ["Sale.merchant=m"] for i in range(6)}, r"expected at most 5, got 6"),
    ],
)
def test_what_is_not_there_is_refused_with_its_place(named: dict[str, list[str]], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        groups(named)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(DefinitionError) as error:
        groups({"A": ["Payed", "Sold"], "B": ["Repayment.channel=usd", "Sale"]})
    assert [problem.path for problem in error.value.problems] == ["$.groups.A[0]", "$.groups.A[1]", "$.groups.B[0]"]


def test_two_groups_of_one_reason_are_refused() -> None:
    twice = [EventGroup(reason="A", events=(one,)) for one in ("Sale", "Repayment")]
    with pytest.raises(DefinitionError, match="two groups have this reason"):
        Groups.of(twice, PLAN, twin.NAME, TOKENIZER)


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
    found = groups({"FAST": ["Order.express=true"], "GIFT": ["order.cause=gift"], "BANK": ["bank"]}, plan, tokenizer)
    express, cause = (tokenizer.names.index(name) for name in ("order.express", "order.cause"))
    assert places(found, {0: 2, express: 3}, {0: 2, express: 2, cause: 2}, {0: 3}, {0: 2}) == [0, 1, 2, NO_GROUP]
    with pytest.raises(DefinitionError, match=r"order\.express is never 'yes'"):
        groups({"FAST": ["Order.express=yes"]}, plan, tokenizer)
