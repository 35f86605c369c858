"""The policy: what is decided with a score, written in TOML, checked whole when it is loaded, carried by the bundle.

    [[eligibility]]                       # rules, all of them evaluated, in order
    name = "in_arrears"
    when = "arrears_now > 0"              # over features, and application.<field>
    outcome = "decline"                   # or "refer"
    null = "refer"                        # what a null condition means: "decline", "refer" (default) or "pass"
    reason = "ARREARS"

    [cutoffs]                             # on the calibrated PD
    approve_below = 0.08
    decline_from = 0.15                   # between the two: refer; by default the same as approve_below

    [exposure]                            # what one applicant may owe and have been offered in all
    feature = "exposure"
    limit = 5_000_000                     # minor units
    reason = "EXPOSURE"

    [offer]
    amount = "amount"                     # the application's money field
    minimum = 100_000                     # below this no counter-offer is made
    step = 10_000                         # counter-offers are rounded down to a multiple
    expires = "30m"
    reason = "AMOUNT"
    [[offer.bands]]                       # by PD, best first; the last may leave pd_below out
    pd_below = 0.03
    amount_max = 2_000_000
    term_days = 30
    fee_basis_points = 500

    [reasons]
    maximum = 4
    [reasons.texts]
    ARREARS = "Payments on an existing loan are overdue"

    [ladder]                              # how a decision may be taken when a dependency is out; "full" always
    rungs = ["full", "cached", "refer"]
    cached_age_max = "10m"                # how old what "cached" rests on may be; without it there is no such rung

Every scored feature's reason code must have a text: "failed the score" is no reason (12 CFR 1002.9(b)(2)).
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from obligor.decisions.conditions import Condition, Names, parse_condition
from obligor.decisions.reading import Reader
from obligor.errors import DefinitionError, Problem, did_you_mean
from obligor.events.schema import parse_duration
from obligor.features.kinds import currencies_in

__all__ = [
    "RUNGS",
    "Band",
    "Caching",
    "Cutoffs",
    "Effect",
    "Exposure",
    "Offering",
    "Policy",
    "Rule",
    "Rung",
    "load_policy",
]

Rung = Literal["full", "cached", "scorecard", "refer"]
RUNGS: tuple[Rung, ...] = ("full", "cached", "scorecard", "refer")
REASONS_MAX = 4  # 12 CFR 1002 appendix C: more than four is not likely to be helpful
RULES_MAX = 200
BANDS_MAX = 50
CACHED_AGE_MAX_US = 86_400_000_000
Effect = Literal["pass", "refer", "decline"]
_EFFECTS: tuple[Effect, ...] = ("decline", "refer", "pass")
_RULE_OUTCOMES: tuple[Effect, ...] = ("decline", "refer")


@dataclass(frozen=True, slots=True)
class Rule:
    """An eligibility rule: `outcome` where `when` is true, `null` where it is null, pass where it is false."""

    name: str
    when: Condition
    outcome: Effect
    null: Effect
    reason: str


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Approve where PD < approve_below, decline where PD >= decline_from, refer between."""

    approve_below: float
    decline_from: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """The most one applicant may owe and have been offered, in minor units, measured by a feature."""

    feature: int
    limit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Band:
    """What is offered below a PD: at most `amount_max` minor units."""

    pd_below: float
    amount_max: int
    term_days: int | None
    fee_basis_points: int | None
    apr_basis_points: int | None


@dataclass(frozen=True, slots=True)
class Offering:
    """How an offer is made: requested amount up to the band's and the exposure's room."""

    amount: str
    currency: str
    minimum: int
    step: int
    expires_us: int
    reason: str
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class Caching:
    """The rung `cached`: how old its features may be, and whose history must not have changed since.

    That is the applicant: the entity, named by the application's fields `via`, whose exposure is limited.
    """

    age_max_us: int
    timeline: str
    via: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A checked policy; `codes` holds the reason code of each feature of the plan (None: not scored).

    `reads` are the application's fields that the policy looks at; they are recorded with every decision.
    """

    application: str
    rules: tuple[Rule, ...]
    cutoffs: Cutoffs
    scorecard_cutoffs: Cutoffs
    exposure: Exposure | None
    offering: Offering | None
    texts: Mapping[str, str]
    reasons_max: int
    rungs: tuple[Rung, ...]
    caching: Caching | None
    codes: tuple[str | None, ...]
    feature_names: tuple[str, ...]
    reads: tuple[str, ...]


def load_policy(source: bytes | str, plan: Mapping[str, Any], application: Mapping[str, Any]) -> Policy:
    """Return the policy in a TOML `source`, checked against a plan and the application's type.

    `plan` is the plan's JSON data, of a bundle with a sequence's score behind the features and under `reasons` the
    codes of its groups of events; `application` is the type's `describe()`. DefinitionError lists every problem found,
    each with its place in the file: `policy.toml $.eligibility[0].when: unknown feature 'arears'; did you mean …`.
    """
    try:
        data = tomllib.loads(source.decode() if isinstance(source, bytes) else source)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(Problem("policy.toml", f"not valid TOML: {error}")) from None
    reader = Reader(data, "policy.toml $")
    names = Names(plan["features"], application["fields"])
    loader = _Loader(names, application, plan.get("measures", ()), plan.get("reasons", ()))
    policy = loader.policy(reader)
    if reader.problems or policy is None:
        raise DefinitionError(reader.problems)
    return policy


class _Loader:
    """Reads the sections one by one; problems gather in the reader."""

    def __init__(
        self,
        names: Names,
        application: Mapping[str, Any],
        measures: Sequence[Mapping[str, Any]],
        reasons: Sequence[str],
    ) -> None:
        self.names, self.application, self.measures, self.reasons = names, application, measures, reasons
        self.texts: dict[str, str] = {}

    def policy(self, reader: Reader) -> Policy | None:
        reasons = reader.table("reasons")
        reasons_max = reasons.integer("maximum", REASONS_MAX, minimum=1, maximum=REASONS_MAX)
        self.texts = reasons.texts("texts")
        reasons.done()
        rules = [self.rule(one) for one in reader.tables("eligibility", maximum=RULES_MAX)]
        self._check_unique(reader, [rule.name for rule in rules if rule])
        cutoffs = self.cutoffs(reader.table("cutoffs"))
        exposure = self.exposure(reader.table("exposure")) if reader.has("exposure") else None
        offering = self.offering(reader.table("offer"), cutoffs) if reader.has("offer") else None
        if exposure and offering:
            self._check_currency(reader, exposure, offering)
        rungs, scorecard, caching = self.ladder(reader.table("ladder"), cutoffs, exposure)
        if offering and offering.bands and scorecard.approve_below > cutoffs.approve_below:  # else as of the model
            self._check_scorecard(reader, scorecard, offering.bands[-1].pd_below)
        reader.done()
        self._check_codes(reader)
        if reader.problems:
            return None
        kept = tuple(rule for rule in rules if rule)
        return Policy(
            application=self.application["name"],
            rules=kept,
            cutoffs=cutoffs,
            scorecard_cutoffs=scorecard,
            exposure=exposure,
            offering=offering,
            texts=self.texts,
            reasons_max=reasons_max,
            rungs=rungs,
            caching=caching,
            codes=tuple(f.get("reason") if f.get("scored", True) else None for f in self.names.features),
            feature_names=tuple(f["name"] for f in self.names.features),
            reads=_reads(kept, offering),
        )

    def rule(self, reader: Reader) -> Rule | None:
        name, text = reader.text("name"), reader.text("when")
        outcome: Effect = reader.choice("outcome", _RULE_OUTCOMES, "decline")
        null: Effect = reader.choice("null", _EFFECTS, "refer")
        reason = self.reason(reader, "reason")
        reader.done()
        if not text:
            return None
        try:
            return Rule(name, parse_condition(text, self.names), outcome, null, reason)
        except DefinitionError as error:
            reader.report("when", str(error))
            return None

    def cutoffs(self, reader: Reader) -> Cutoffs:
        approve = reader.probability("approve_below")
        decline = reader.probability("decline_from", approve)
        reader.done()
        if decline < approve:
            reader.report("decline_from", f"expected at least approve_below ({approve}), got {decline}")
        return Cutoffs(approve, decline)

    def exposure(self, reader: Reader) -> Exposure:
        name, limit = reader.text("feature"), reader.integer("limit", minimum=0)
        reason = self.reason(reader, "reason")
        reader.done()
        index = 0
        if name:
            try:
                index, feature = self.names.feature(name)
                if feature.get("type") in ("boolean", "category"):
                    reader.report("feature", f"expected a number, {name!r} is a {feature['type']}")
            except DefinitionError as error:
                reader.report("feature", str(error))
        return Exposure(index, limit, reason)

    def offering(self, reader: Reader, cutoffs: Cutoffs) -> Offering:
        amount, currency = reader.text("amount"), ""
        if amount:
            currency = self._currency(reader, amount)
        minimum, step = reader.integer("minimum", 1, minimum=1), reader.integer("step", 1, minimum=1)
        expires_us = reader.duration("expires", parse_duration)
        bands = tuple(_band(one) for one in reader.tables("bands", maximum=BANDS_MAX))
        bounds = [band.pd_below for band in bands]
        if not bands:
            reader.report("bands", "expected at least one [[offer.bands]]")
        elif bounds != sorted(set(bounds)):
            reader.report("bands", f"expected pd_below to rise from band to band, got {bounds}")
        elif bounds[-1] < cutoffs.approve_below:
            reader.report("bands", f"the last band ends at {bounds[-1]}, below cutoffs.approve_below: no offer there")
        reason = self.reason(reader, "reason")
        reader.done()
        return Offering(amount, currency, minimum, step, expires_us, reason, bands)

    def ladder(
        self, reader: Reader, cutoffs: Cutoffs, exposure: Exposure | None
    ) -> tuple[tuple[Rung, ...], Cutoffs, Caching | None]:
        rungs = {*reader.choices("rungs", RUNGS, ("full", "refer")), "full", "refer"}
        scorecard = self.cutoffs(reader.table("scorecard")) if reader.has("scorecard") else cutoffs
        caching = self.caching(reader, rungs, exposure) if reader.has("cached_age_max") else None
        reader.done()
        if caching is None:
            rungs.discard("cached")
        return tuple(rung for rung in RUNGS if rung in rungs), scorecard, caching

    def caching(self, reader: Reader, rungs: Collection[str], exposure: Exposure | None) -> Caching | None:
        """Return what the rung `cached` needs; its features must be all of one entity, which is the applicant."""
        age_us = reader.duration("cached_age_max", parse_duration)
        if age_us > CACHED_AGE_MAX_US:
            reader.report("cached_age_max", f"expected at most 1d, got {reader.data['cached_age_max']!r}")
        if "cached" not in rungs:
            reader.report("cached_age_max", f"expected the rung 'cached' in rungs with it, got {sorted(rungs)}")
        sources = set() if exposure is None else self._sources(exposure.feature)
        if len(sources) != 1:
            whose = " and ".join(sorted("+".join(via) for _, via in sources)) or "nobody"
            reader.report(
                "cached_age_max",
                "expected an [exposure] that is measured of one entity, whose next event ends what is cached; "
                f"it is of {whose}",
            )
            return None
        ((timeline, via),) = sources
        return Caching(age_us, timeline, via)

    def _sources(self, feature: int) -> set[tuple[str, tuple[str, ...]]]:
        """Return the timelines that a feature looks at, with the application's fields that name the entity."""
        program = self.names.features[feature].get("program", ())
        measures = [self.measures[step[1]] for step in program if step[0] == "measure"]
        return {(one["timeline"], tuple(one["via"])) for one in measures}

    def reason(self, reader: Reader, key: str) -> str:
        code = reader.text(key)
        if code and code not in self.texts:
            reader.report(
                key, f"reason {code!r} has no text in [reasons.texts]; {did_you_mean(code, list(self.texts))}"
            )
        return code

    def _currency(self, reader: Reader, amount: str) -> str:
        try:
            field = self.names.field(amount)
        except DefinitionError as error:
            reader.report("amount", str(error))
            return ""
        if field["kind"] != "money" or len(field["currencies"]) != 1:
            reader.report("amount", f"expected a Money field in one currency, {amount!r} is {field}")
            return ""
        return str(field["currencies"][0])

    def _check_currency(self, reader: Reader, exposure: Exposure, offering: Offering) -> None:
        """Report an exposure in another currency than the offer's, whose room would be no room for it."""
        feature = self.names.features[exposure.feature]
        others = currencies_in(feature.get("unit") or "") - {offering.currency}
        if others and offering.currency:
            owed = " and ".join(sorted(others))
            reader.report(
                "exposure.feature", f"expected {offering.currency} as offered, {feature['name']!r} is in {owed}"
            )

    def _check_scorecard(self, reader: Reader, cutoffs: Cutoffs, end: float) -> None:
        """Report cut-offs by which somebody is approved for whom no band has an offer."""
        if cutoffs.approve_below > end:
            reader.report(
                "ladder.scorecard.approve_below",
                f"expected at most {end}, where the last of offer.bands ends: no offer there",
            )

    def _check_unique(self, reader: Reader, names: Sequence[str]) -> None:
        for name in sorted({name for name in names if names.count(name) > 1}):
            reader.report("eligibility", f"two rules are named {name!r}")

    def _check_codes(self, reader: Reader) -> None:
        for feature in self.names.features:
            code = feature.get("reason")
            if feature.get("scored", True) and not code:
                reader.report("reasons", f"the scored feature {feature['name']!r} has no reason code")
            elif feature.get("scored", True) and code not in self.texts:
                reader.report("reasons.texts", f"no text for {code!r}, the reason of feature {feature['name']!r}")
        for code in self.reasons:
            if code not in self.texts:
                reader.report("reasons.texts", f"no text for {code!r}, the reason of events of the sequence")


def _band(reader: Reader) -> Band:
    band = Band(
        pd_below=reader.probability("pd_below", 1.0),
        amount_max=reader.integer("amount_max", minimum=1),
        term_days=reader.integer_or_none("term_days", minimum=1),
        fee_basis_points=reader.integer_or_none("fee_basis_points", minimum=0),
        apr_basis_points=reader.integer_or_none("apr_basis_points", minimum=0),
    )
    reader.done()
    return band


def _reads(rules: Sequence[Rule], offering: Offering | None) -> tuple[str, ...]:
    fields = {name for rule in rules for name in rule.when.reads}
    return tuple(sorted(fields | ({offering.amount} if offering else set())))
