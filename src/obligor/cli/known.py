"""What is known of the features of a plan: their words, where they are used, and what was measured of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.errors import DefinitionError, NotFound, did_you_mean

if TYPE_CHECKING:
    from obligor.decisions.policy import Policy
    from obligor.decisions.uses import Use
    from obligor.features.catalogue import Entry
    from obligor.features.plan import Plan
    from obligor.models.bundle import Bundle
    from obligor.project import Project

__all__ = ["InPlan", "Known", "known_features", "stats_path", "unit_words"]

InPlan = Annotated[
    str,
    typer.Option(
        "--plan", help="`working copy`, `champion`, or the first 8 or more characters of a bundle's or a plan's hash."
    ),
]


@dataclass(frozen=True)
class Known:
    """A plan's features, in its order."""

    name: str  # as it was asked for
    plan: Plan
    bundle: Bundle | None  # whose models are looked at: the plan's own, or the champion
    entries: tuple[Entry, ...]
    uses: Mapping[str, Use]
    stats: Mapping[str, Any] | None  # what `features stats` wrote of this plan; None before
    misfits: int  # what of the working copy's policy does not fit its features; its rules and texts are then left out
    without_policy: bool  # whether the project has no policy.toml yet, nor the plan a bundle that has one

    def entry(self, name: str) -> Entry:
        """Return a feature's entry; NotFound with the nearest name otherwise."""
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            names = [*self.plan.names, *(one.name for one in self.plan.sequences)]
            raise NotFound(f"no feature {name!r}; {did_you_mean(name, names)}")
        return found

    def measured(self, name: str) -> Mapping[str, Any]:
        """Return what was measured of a feature; empty before it was."""
        found: Mapping[str, Any] = {} if self.stats is None else self.stats["features"].get(name, {})
        return found

    def notes(self, name: str) -> str:
        """Return what is to be noticed of a feature: that nothing looks at it, that it is expensive, or ""."""
        expensive = self.stats is not None and name in self.stats["expensive"]
        return ", ".join([*(["unused"] if name in self.unused() else []), *(["expensive"] if expensive else [])])

    def unused(self) -> Iterator[str]:
        """Yield the features that no model, rule or limit looks at, as far as a model knows them."""
        if self.bundle is not None:
            yield from (name for name, use in self.uses.items() if use.known and use.unused)


def unit_words(entry: Entry) -> str:
    """Return a feature's unit, or what it is instead of a number."""
    return {"boolean": "yes or no", "category": "a category"}.get(entry.type, entry.unit or "number")


def stats_path(project: Project, plan: Plan) -> Path:
    """Return where the statistics of a plan are kept; they may be deleted at any time."""
    return project.path(project.settings.store.reports) / f"features-{plan.hash[:12]}.json"


def known_features(project: Project, name: str) -> Known:
    """Return what is known of the features of a plan; `name` as in `Project.plan_named`."""
    from obligor.decisions.uses import uses
    from obligor.features.catalogue import catalogue
    from obligor.project import WORKING_COPY

    plan = project.plan_named(name)
    bundle = _bundle(project, plan)
    policy: Policy | None = None
    misfits, without_policy = 0, False
    try:
        if (name == WORKING_COPY or bundle is None) and not project.path("policy.toml").is_file():
            without_policy = True
        elif name == WORKING_COPY:
            policy = project.check_policy(project.policy, project.described)
        elif bundle is None:
            policy = project.check_policy(project.policy, plan.data)
        else:
            policy = project.check_policy(bundle.policy, bundle.described)
    except DefinitionError as error:
        if name != WORKING_COPY:
            raise
        misfits = len(error.problems)
    path = stats_path(project, plan)
    stats = json.loads(path.read_text()) if path.is_file() else None
    return Known(name, plan, bundle, tuple(catalogue(plan)), uses(plan, policy, bundle), stats, misfits, without_policy)


def _bundle(project: Project, plan: Plan) -> Bundle | None:
    """Return the champion, or another bundle of the plan where the champion is not of it; None where there is none."""
    try:
        champion = project.bundle()
    except NotFound:
        champion = None
    if champion is not None and champion.plan.hash == plan.hash:
        return champion
    return next((one for one in project.all_bundles().values() if one.plan.hash == plan.hash), champion)
