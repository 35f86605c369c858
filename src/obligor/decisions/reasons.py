"""Principal reasons: what in fact caused a decline, a referral or a counter-offer, most adverse first.

A score's reasons are its interventional Shapley values against the bundle's one reference applicant, summed by reason
code in the plan's order. They reconcile: the parts add up to the score less the reference's. A code is adverse where
its sum raises the risk. Source: 12 CFR 1002.9(b)(2) and its commentary (the factors actually scored, none omitted).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Reason", "divided", "group_contributions", "named", "principal"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: its code, its text, and by how much it raised the score's log-odds (None for rules and limits)."""

    code: str
    text: str
    contribution: float | None = None


def group_contributions(contributions: Iterable[float], codes: Sequence[str | None]) -> dict[str, float]:
    """Return the sum of contributions by reason code, added in the plan's order.

    >>> group_contributions([0.5, 0.25, -1.0, 0.0], ["LATE", "LATE", "INCOME", None])
    {'LATE': 0.75, 'INCOME': -1.0}
    """
    groups: dict[str, float] = {}
    for code, contribution in zip(codes, contributions, strict=True):
        if code is not None:
            groups[code] = groups.get(code, 0.0) + float(contribution)
    return groups


def divided(
    contributions: Sequence[float], codes: Sequence[str | None], parts: Mapping[str, float]
) -> dict[str, float]:
    """Return `group_contributions` with `parts`, by reason code, in place of the last contribution.

    >>> divided([0.5, 0.25], ["LATE", "HISTORY"], {"HISTORY": 0.125, "LENDERS": 0.0625, "LATE": 0.0625})
    {'LATE': 0.5625, 'HISTORY': 0.125, 'LENDERS': 0.0625}
    """
    groups = group_contributions(contributions[:-1], codes[:-1])
    for code, contribution in parts.items():
        groups[code] = groups.get(code, 0.0) + contribution
    return groups


def principal(groups: Mapping[str, float], texts: Mapping[str, str], maximum: int) -> list[Reason]:
    """Return the codes that raised the risk, the largest first, ties by code; at most `maximum`.

    If none did (the cut-off lies below the reference's own score) the least favourable code is named: there is
    always a reason.
    """
    ranked = sorted(groups.items(), key=lambda group: (-group[1], group[0]))
    adverse = [(code, value) for code, value in ranked if value > 0.0] or ranked[:1]
    return [Reason(code, texts[code], value) for code, value in adverse[:maximum]]


def named(codes: Sequence[str], texts: Mapping[str, str], maximum: int) -> list[Reason]:
    """Return the reasons that rules or limits name, each once, in their order."""
    return [Reason(code, texts[code]) for code in list(dict.fromkeys(codes))[:maximum]]
