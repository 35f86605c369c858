"""Where features are used: by the models of a bundle, by a policy, and so in the reasons that applicants are given.

A feature is used by boosted trees that split on it, by a scorecard that has a card of it, and by a policy's rules and
exposure limit. A reason code is given for what the models made of its features, so a feature that no model looks at
never gives one, whatever its definition says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from obligor.decisions.policy import Policy
from obligor.features.forms import form_hash
from obligor.features.plan import Plan
from obligor.models.bundle import Bundle

__all__ = ["Use", "score_words", "uses"]


@dataclass(frozen=True, slots=True)
class Use:
    """Where one feature is used; `known` says whether the models were trained on it as it is defined now."""

    known: bool
    splits: int  # of the boosted trees' nodes that compare it
    bins: int  # of its card in the scorecard, the one for null included
    policy: tuple[str, ...]  # rules and limits, in words
    reason: str
    reason_text: str

    @property
    def modelled(self) -> bool:
        """Whether a model looks at it."""
        return self.splits > 0 or self.bins > 0

    @property
    def unused(self) -> bool:
        """Whether nothing looks at it: no model, no rule, no limit."""
        return not self.modelled and not self.policy


def uses(plan: Plan, policy: Policy | None, bundle: Bundle | None) -> dict[str, Use]:
    """Return where each feature of a plan is used: by a policy that was checked against it (None: by none), by models.

    The bundle may be of another plan: its models know the features that are computed as theirs of the same name.
    """
    splits, bins = ({}, {}) if bundle is None else (_splits(bundle), _bins(bundle))
    trained = {} if bundle is None else {one.name: form_hash(bundle.plan, one) for one in bundle.plan.features}
    ruled = {} if policy is None else _ruled(policy)
    found = {}
    for place, feature in enumerate(plan.features):
        known = trained.get(feature.name) == form_hash(plan, feature)
        code = feature.reason
        found[feature.name] = Use(
            known=known,
            splits=splits.get(feature.name, 0) if known else 0,
            bins=bins.get(feature.name, 0) if known else 0,
            policy=tuple(ruled.get(place, ())),
            reason=code or "",
            reason_text=policy.texts.get(code, "") if code and policy is not None else "",
        )
    return found


def score_words(bundle: Bundle, sequence: str) -> str:
    """Return how a bundle's trees use the score of a sequence; "" where they have none."""
    score = bundle.sequence
    if score is None or score.sequence != sequence:
        return ""
    splits, count = _splits(bundle)[score.name], int((bundle.trees.left >= 0).sum())
    groups = "".join(f"; {group.reason}: {', '.join(group.events)}" for group in score.groups)
    return f"{score.name} in {splits:,} of the {count:,} splits of the trees (reason {score.reason}{groups})"


def _splits(bundle: Bundle) -> Mapping[str, int]:
    """Return how many nodes of the trees compare each feature."""
    columns = bundle.trees.column[bundle.trees.left >= 0]
    counts = np.bincount(bundle.inputs.source[columns], minlength=bundle.inputs.width)
    return dict(zip(bundle.inputs.feature_names, counts.tolist(), strict=True))


def _bins(bundle: Bundle) -> Mapping[str, int]:
    return {card.feature: len(card.woe) for card in bundle.scorecard.cards if card.coefficient}


def _because(policy: Policy, code: str) -> str:
    return f" (reason {code}: {policy.texts[code]})" if code in policy.texts else ""


def _ruled(policy: Policy) -> Mapping[int, Sequence[str]]:
    """Return what the policy does with each feature, by its place."""
    found: dict[int, list[str]] = {}
    for rule in policy.rules:
        for place in sorted(rule.when.features):
            words = f"rule {rule.name}: {rule.outcome} where {rule.when.text}"
            found.setdefault(place, []).append(words + _because(policy, rule.reason))
    if policy.exposure is not None:
        limit = f"exposure limit: at most {policy.exposure.limit:,} minor units"
        found.setdefault(policy.exposure.feature, []).append(limit + _because(policy, policy.exposure.reason))
    return found
