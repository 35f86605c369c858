"""The pure decision: an application, its features, a scorer and a policy give an outcome with offer and reasons.

No clock, no store, no random generator: `as_of`, `cut` and `seed` are arguments, so the writer and replay call the
same function. Order: eligibility rules, score, exposure, offer, reasons. Every step leaves a line in the trace, whose
`effect` is pass, refer or decline; the worst effect decides, and the reasons are those of the steps that had it.

Rungs: `full` and `cached` score with the model (the features of `cached` are those at an older cut and instant, which
are recorded), `scorecard` with the fallback, `refer` scores nothing. A declared limit crossed while computing features
(`limit`) refers the decision.

The last feature may be a sequence's score. Where it is among the principal reasons, its contribution is divided between
groups of events, which are then ranked beside the other reasons; only then are the `coalitions` computed for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from obligor.decisions.policy import Band, Cutoffs, Effect, Offering, Policy, Rung
from obligor.decisions.reasons import Reason, divided, group_contributions, named, principal
from obligor.errors import LimitError
from obligor.events.schema import OUTCOMES
from obligor.sequences.coalitions import Coalitions, shapley

__all__ = ["Application", "Cached", "Cut", "Decision", "Offer", "Score", "Scorer", "decide"]

Cut = Mapping[int, int]
Features = Sequence[float]


class Score(Protocol):
    """A scored application: `margin` (the model's sum, log-odds), `log_odds` and `pd` after calibration."""

    @property
    def margin(self) -> float:
        """The model's own log-odds: the sum of its leaves or points."""

    @property
    def log_odds(self) -> float:
        """The calibrated log-odds."""

    @property
    def pd(self) -> float:
        """The calibrated probability of default, strictly between 0 and 1."""


class Scorer(Protocol):
    """What `decide` needs of a bundle; features are float64 in the plan's order, NaN is null."""

    def score(self, features: Any) -> Score:
        """Return the model's score."""

    def contributions(self, features: Any) -> Iterable[float]:
        """Return each feature's part in margin less the reference's margin."""

    def scorecard_score(self, features: Any) -> Score:
        """Return the fallback scorecard's score."""

    def scorecard_contributions(self, features: Any) -> Iterable[float]:
        """Return each feature's part in the scorecard's margin less the reference's."""


class Cached(NamedTuple):
    """The cut and the instant of features that are older than their decision."""

    cut: Cut
    as_of: int


@dataclass(frozen=True, slots=True)
class Application:
    """The request: its event id, type, position in the log and fields in stored form, personal ones left out."""

    event_id: str
    type: str
    position: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """What the lender offers, in minor units; the fee is `fee_basis_points` of the amount, rounded half up."""

    amount: int
    currency: str
    expires_at: int
    term_days: int | None = None
    fee: int | None = None
    apr_basis_points: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision with all that produced it; `record.encode` turns it into the ledger's canonical bytes."""

    application: Application
    as_of: int
    cut: Cut
    seed: int
    rung: Rung
    features: Features | None
    outcome: str
    offer: Offer | None
    reasons: tuple[Reason, ...]
    score: Score | None
    contributions: Mapping[str, float]
    trace: tuple[Mapping[str, Any], ...]
    request: Mapping[str, Any]
    limit: str = ""
    cached: Cached | None = None

    @property
    def pd(self) -> float | None:
        """The calibrated probability of default, None where nothing was scored."""
        return self.score.pd if self.score else None


def decide(
    application: Application,
    features: Sequence[float] | NDArray[np.float64] | None,
    scorer: Scorer,
    policy: Policy,
    *,
    as_of: int,
    cut: Cut,
    seed: int,
    rung: Rung = "full",
    limit: str = "",
    cached: Cached | None = None,
    coalitions: Callable[[], Coalitions] | None = None,
) -> Decision:
    """Return the decision on `application` as known at (`cut`, `as_of`), with the rung `cached` at that of `cached`.

    `features` are float64 in the plan's order, NaN is null; None with the rung `refer`, or together with `limit`, the
    message of a LimitError met while computing them. Where the last of them is a sequence's score, `coalitions` gives
    it without some of its events; it is called on the rung `full` alone, as others do not rest on what it shows now.
    """
    assert rung in policy.rungs, f"rung {rung!r} is not in the policy's ladder {policy.rungs}"
    assert (features is None) == (rung == "refer" or bool(limit)), (
        "features are missing exactly where none are computed"
    )
    _check_cached(rung, cached, policy, cut, as_of)
    run = _Run(policy, application)
    values = None if features is None else tuple(map(float, features))
    limit = limit or _not_finite(values, policy)
    if features is None or values is None or limit:
        run.step("features", "refer", why=limit or "the rung computes none")
    else:
        run.eligibility(values)
        run.score(features, scorer, rung)
        run.offer(values, as_of)
    outcome = run.outcome()
    if coalitions is not None and values is not None and rung == "full":
        run.divide(outcome, values, scorer, coalitions)
    return Decision(
        application=application,
        as_of=as_of,
        cut=dict(cut),
        seed=seed,
        rung=rung,
        features=None if limit else values,
        outcome=outcome,
        offer=run.offered if outcome in ("approve", "counter_offer") else None,
        reasons=tuple(run.reasons(outcome)),
        score=run.scored,
        contributions=run.groups,
        trace=tuple(run.trace),
        request={name: application.fields.get(name) for name in policy.reads},
        limit=limit,
        cached=cached,
    )


def _check_cached(rung: Rung, cached: Cached | None, policy: Policy, cut: Cut, as_of: int) -> None:
    assert (cached is not None) == (rung == "cached"), "exactly the rung 'cached' says what it rests on"
    if cached is not None and policy.caching is not None:
        assert 0 <= as_of - cached.as_of <= policy.caching.age_max_us, (
            "what is cached is too old, or of a later instant"
        )
        assert all(last <= cut.get(shard, 0) for shard, last in cached.cut.items()), "what is cached is of a later cut"


@dataclass
class _Run:
    """One pass through the policy: each step adds its effect and what it would name as reason."""

    policy: Policy
    application: Application
    trace: list[Mapping[str, Any]] = field(default_factory=list)
    causes: list[tuple[Effect, str]] = field(default_factory=list)  # the effect and a reason code; "" is the score
    scored: Score | None = None
    contributions: tuple[float, ...] = ()  # by feature
    groups: dict[str, float] = field(default_factory=dict)  # by reason code
    offered: Offer | None = None
    reduced: list[str] = field(default_factory=list)  # why less is offered than was asked

    def step(self, name: str, effect: Effect, code: str | None = None, **details: Any) -> None:
        self.trace.append({"step": name, "effect": effect, **details})
        if code is not None and effect != "pass":
            self.causes.append((effect, code))

    def eligibility(self, features: Features) -> None:
        for rule in self.policy.rules:
            value = rule.when.evaluate(features, self.application.fields)
            effect: Effect = rule.null if value is None else rule.outcome if value else "pass"
            self.step("eligibility", effect, rule.reason, rule=rule.name, value=value)

    def score(self, features: object, scorer: Scorer, rung: Rung) -> None:
        if rung == "scorecard":
            self.scored, cutoffs = scorer.scorecard_score(features), self.policy.scorecard_cutoffs
            contributions = scorer.scorecard_contributions(features)
        else:
            self.scored, cutoffs = scorer.score(features), self.policy.cutoffs
            contributions = scorer.contributions(features)
        self.contributions = tuple(map(float, contributions))
        self.groups = group_contributions(self.contributions, self.policy.codes)
        self.step("score", _cut_off(self.scored.pd, cutoffs), "")

    def offer(self, features: Features, as_of: int) -> None:
        """Bound the amount by exposure and band; an applicant that the steps before declined gets none."""
        room = self._room(features)
        offering = self.policy.offering
        if offering is None or self.scored is None or self.worst() == "decline":
            return
        asked = self.application.fields.get(offering.amount)
        if asked is None or asked <= 0:  # a decline would have no reason to name
            why = f"the application has no {offering.amount}" if asked is None else f"{offering.amount} is {asked}"
            self.step("offer", "refer", offering.reason, why=why)
            return
        index = _band_index(self.scored.pd, offering)
        band = offering.bands[index]
        amount = _allowed(asked, min(band.amount_max, asked if room is None else room), offering)
        if amount < asked:
            self.reduced = self._why_less(asked, room, index)
        if amount <= 0:
            for code in self.reduced:
                self.causes.append(("decline", code))
            self.step("offer", "decline", asked=asked, band=index)
            return
        self.offered = _offer(amount, band, offering, as_of)
        self.step("offer", "pass", asked=asked, band=index, amount=amount)

    def _room(self, features: Features) -> int | None:
        """Return what may still be lent under the exposure limit; None without a limit or a known exposure."""
        exposure = self.policy.exposure
        if exposure is None:
            return None
        owed = float(features[exposure.feature])
        if math.isnan(owed):
            self.step("exposure", "refer", exposure.reason, why="the exposure is null")
            return None
        room = max(0, exposure.limit - math.ceil(owed))
        self.step("exposure", "pass" if room else "decline", exposure.reason, room=room)
        return room

    def _why_less(self, asked: int, room: int | None, band: int) -> list[str]:
        """Return what binds: the exposure, or the band; a band below the best one is the score's doing."""
        assert self.policy.offering is not None
        ceiling = self.policy.offering.bands[band].amount_max
        codes = []
        if self.policy.exposure and room is not None and room < asked and room <= ceiling:
            codes.append(self.policy.exposure.reason)
        if ceiling < asked and (room is None or ceiling <= room):
            codes += [self.policy.offering.reason, *([""] if band else [])]
        return codes or [self.policy.offering.reason]

    def worst(self) -> Effect:
        effects = {step["effect"] for step in self.trace}
        return "decline" if "decline" in effects else "refer" if "refer" in effects else "pass"

    def outcome(self) -> str:
        worst = self.worst()
        outcome = {"decline": "decline", "refer": "refer", "pass": "approve"}[worst]
        if outcome == "approve" and self.reduced:
            outcome = "counter_offer"
        assert outcome in OUTCOMES
        return outcome

    def divide(self, outcome: str, features: Features, scorer: Scorer, coalitions: Callable[[], Coalitions]) -> None:
        """Divide the last feature's contribution where it raised the risk and is among the reasons of `outcome`."""
        if "" not in self._codes(outcome) or self.contributions[-1] <= 0.0:
            return
        leading = principal(self.groups, self.policy.texts, self.policy.reasons_max)
        code = self.policy.codes[-1]
        if code is None or code not in {reason.code for reason in leading}:
            return
        try:
            found = coalitions()
        except LimitError as error:  # of a sequence that never came: the score stands, and its reason stays whole
            self.step("reasons", "pass", why=str(error))
            return
        assert float(found.scores[-1]) == features[-1], f"it scores {found.scores[-1]}, the feature is {features[-1]}"
        worth = [tuple(scorer.contributions((*features[:-1], float(score))))[-1] for score in found.scores]
        parts = {code: float(worth[0]), **dict(zip(found.present, shapley(np.array(worth)), strict=True))}
        self.groups = divided(self.contributions, self.policy.codes, parts)

    def _codes(self, outcome: str) -> list[str]:
        """Return the reason codes of the steps that caused `outcome`; "" is the score."""
        if outcome == "approve":
            return []
        if outcome == "counter_offer":
            return self.reduced
        return [code for effect, code in self.causes if effect == outcome]

    def reasons(self, outcome: str) -> list[Reason]:
        """Return the reasons of the steps that caused `outcome`: named ones first, then the score's."""
        codes, texts, maximum = self._codes(outcome), self.policy.texts, self.policy.reasons_max
        reasons = named([code for code in codes if code], texts, maximum)
        if "" in codes and self.scored is not None:
            seen = {reason.code for reason in reasons}
            reasons += [one for one in principal(self.groups, texts, maximum) if one.code not in seen]
        return reasons[:maximum]


def _not_finite(values: Sequence[float] | None, policy: Policy) -> str:
    """Return the message that refers a decision whose feature overflowed, "" if none did."""
    for name, value in zip(policy.feature_names, values, strict=True) if values is not None else ():
        if math.isinf(value):
            return f"feature {name!r} is not finite"
    return ""


def _cut_off(pd: float, cutoffs: Cutoffs) -> Effect:
    if pd < cutoffs.approve_below:
        return "pass"
    return "decline" if pd >= cutoffs.decline_from else "refer"


def _band_index(pd: float, offering: Offering) -> int:
    """Return the first band whose bound lies above the PD; the last one for a PD that is to be referred."""
    for index, band in enumerate(offering.bands):
        if pd < band.pd_below:
            return index
    return len(offering.bands) - 1


def _allowed(asked: int, ceiling: int, offering: Offering) -> int:
    """Return the amount to offer: what was asked, or the ceiling in whole steps, or 0 below the minimum."""
    if asked <= ceiling:
        return asked
    amount = ceiling - ceiling % offering.step
    return amount if amount >= offering.minimum else 0


def _offer(amount: int, band: Band, offering: Offering, as_of: int) -> Offer:
    points = band.fee_basis_points
    return Offer(
        amount=amount,
        currency=offering.currency,
        expires_at=as_of + offering.expires_us,
        term_days=band.term_days,
        fee=None if points is None else (amount * points + 5_000) // 10_000,
        apr_basis_points=band.apr_basis_points,
    )
