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

Both are one measure of the plan, `balance`: its exact definition stands there. It does not depend on the order in
which facts arrive, so corrections and late events need no special case; a key that is overpaid counts as 0, and pays
for no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from obligor.errors import DefinitionError
from obligor.features.definitions import Feature, Notes
from obligor.features.expressions import Balanced, BalanceTerm
from obligor.features.selection import Flow, PerKey

__all__ = ["outstanding", "reserved"]


def outstanding(
    *, opened: Flow, reduced: Sequence[Flow] = (), closed: Sequence[PerKey] = (), **notes: Unpack[Notes]
) -> Feature:
    """Return the sum over keys, without the closed ones, of what was opened less what was reduced, at least 0 each."""
    return _balance([opened], reduced, closed, notes)


def reserved(*, offered: Flow, ended: Sequence[PerKey] = (), **notes: Unpack[Notes]) -> Feature:
    """Return the sum of the offered amounts that are neither expired nor of an ended key (accepted, cancelled)."""
    if offered.expires is None and offered.expires_after_us is None:
        raise DefinitionError("reserved: an offer must expire; say when with amount(..., expires=field or lasts='30m')")
    return _balance([offered], (), ended, notes)


def _balance(added: Sequence[Flow], reduced: Sequence[Flow], closed: Sequence[PerKey], notes: Notes) -> Feature:
    kind = added[0].kind
    sources = [part.source for part in (*added, *reduced)] + [part.stream.source for part in closed]
    for flow in (*added, *reduced):
        if (flow.kind.unit, flow.kind.scale) != (kind.unit, kind.scale):
            raise DefinitionError(f"a balance needs one unit, got {kind.unit or 'none'} and {flow.kind.unit or 'none'}")
    if any(flow.expires or flow.expires_after_us is not None for flow in reduced):
        raise DefinitionError("a reduction does not expire: leave out expires and lasts")
    entities = dict.fromkeys((source.by.type, source.via) for source in sources)
    if len(entities) > 1:
        raise DefinitionError(f"a balance is of one entity, got {' and '.join(name for name, _ in entities)}")
    terms = [_term(flow, "add") for flow in added] + [_term(flow, "subtract") for flow in reduced]
    terms += [BalanceTerm(one.stream.source, "close", one.key, None, None, None) for one in closed]
    return Feature({"": Balanced(tuple(terms), kind)}, notes)


def _term(flow: Flow, role: Literal["add", "subtract"]) -> BalanceTerm:
    return BalanceTerm(flow.source, role, flow.key, flow.amount, flow.expires, flow.expires_after_us)
