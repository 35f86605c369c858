"""Balances: what an entity owes or could come to owe, summed over its loans and open offers.

    exposure = feature(
        outstanding(
            opened=LoanOpened.by("consumer").per("loan").amount("principal"),
            reduced=[Repayment.by("consumer").per("loan").amount("amount")],
            closed=[LoanCancelled.by("consumer").per("loan")],
        )
        + reserved(
            offered=Decided.by("consumer").where(Decided.outcome.isin(["approve", "counter_offer"]))
                .per("application_id").amount("offer_amount", expires="offer_expires_at"),
            ended=[LoanOpened.by("consumer").per("application_id")],
        ),
        description="What the consumer owes, and what open offers may add", scored=False,
    )

Both are numbers by key like any others (see `per_key`): max(0, opened - reduced) of each key that no fact has closed,
summed over the keys. They do not depend on the order in which facts arrive, so corrections and late events need no
special case; a key that is overpaid counts as 0, and pays for no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Unpack

from obligor.errors import DefinitionError
from obligor.events.predicates import Predicate
from obligor.features.definitions import Feature, Notes, as_of
from obligor.features.measures import TimeWindow
from obligor.features.operators import maximum
from obligor.features.per_key import ByKey, Flow, PerKey
from obligor.features.sources import narrowed
from obligor.features.windows import LIFETIME

__all__ = ["outstanding", "reserved"]


def outstanding(
    *, opened: Flow, reduced: Sequence[Flow] = (), closed: Sequence[PerKey] = (), **notes: Unpack[Notes]
) -> Feature:
    """Return the sum over keys, without the closed ones, of what was opened less what was reduced, at least 0 each."""
    if any(flow.expires is not None or flow.lasts_us is not None for flow in reduced):
        raise DefinitionError("a reduction does not expire: leave out expires and lasts")
    return _balance(opened, reduced, closed, notes)


def reserved(*, offered: Flow, ended: Sequence[PerKey] = (), **notes: Unpack[Notes]) -> Feature:
    """Return the sum of the offered amounts that are neither expired nor of an ended key (accepted, cancelled).

    An offer is live while as_of is before its expiry: its field, or where that is null its event_time and `lasts`.
    """
    if offered.expires is None and offered.lasts_us is None:
        raise DefinitionError("reserved: an offer must expire; say when with amount(..., expires=field or lasts='30m')")
    return _balance(offered, (), ended, notes)


def _balance(opened: Flow, reduced: Sequence[Flow], closed: Sequence[PerKey], notes: Notes) -> Feature:
    for part in (opened.of, *(flow.of for flow in reduced), *closed):
        if part.key.optional:
            # A fact without its key would silently count for nothing.
            where = f"{part.source.event.__name__}.{part.key.name}"
            raise DefinitionError(f"a balance needs a key that every fact has, got the optional {where}")
    net = _live(opened)
    for flow in reduced:
        taken = _live(flow)
        if taken.unit != net.unit:
            raise DefinitionError(f"a balance needs one unit, got {net.unit or 'none'} and {taken.unit or 'none'}")
        net -= taken
    left = maximum(0, net)
    if closed:
        left *= reduce(add, (part.count() for part in closed)) == 0
    return left.sum(**notes)


def _live(flow: Flow) -> ByKey:
    """Return the amounts by key that have not expired."""
    if flow.expires is None:
        return _amount(flow, (), flow.lasts_us)
    dated = _amount(flow, (flow.expires > as_of,), None)
    return dated + _amount(flow, (flow.expires.is_null(),), flow.lasts_us) if flow.expires.optional else dated


def _amount(flow: Flow, predicates: Sequence[Predicate], lasts_us: int | None) -> ByKey:
    """Return the sum by key of the amounts of the last `lasts_us`, without the instant at which they end."""
    # as_of < event_time + lasts is event_time >= as_of - (lasts - 1): a microsecond less than a window of that length.
    span = LIFETIME if lasts_us is None else TimeWindow(length_us=lasts_us - 1, offset_us=0)
    facts = replace(flow.of, source=narrowed(flow.of.source, predicates))
    return facts.over("sum", flow.amount, span)
