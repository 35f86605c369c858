"""Backtest: what a bundle and a policy would have decided on past applications. Nothing is written.

Each application is decided by the same pure `decide`, on its features as of its own instant. Against what the lender
did then, four groups result: both take, both refuse, swapped in and swapped out. Outcomes are known only of loans that
were made, so of the swapped in only the expected bad rate is given (as in any comparison on through-the-door data).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from obligor.decisions.decide import Application, Decision, Scorer, decide
from obligor.decisions.policy import Policy
from obligor.models.training_set import TrainingSet
from obligor.sequences.coalitions import Coalitions

__all__ = ["Backtest", "backtest"]

TAKEN = ("approve", "counter_offer")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Backtest:
    """The decisions beside what is known of each application, in the training set's order."""

    data: TrainingSet
    decisions: tuple[Decision, ...]

    def summary(self) -> dict[str, Any]:
        """Return counts, rates and swap sets as JSON data; a rate without rows behind it is None."""
        outcomes = np.array([decision.outcome for decision in self.decisions], dtype=np.str_)
        taken = np.isin(outcomes, TAKEN)
        pd = np.array([np.nan if decision.pd is None else decision.pd for decision in self.decisions])
        declined_then = self.data.status == "declined"
        offered = [decision.offer for decision in self.decisions if decision.offer is not None]
        reasons = Counter(reason.code for decision in self.decisions for reason in decision.reasons)
        return {
            "applications": len(outcomes),
            "outcomes": dict(Counter(outcomes.tolist())),
            "approval_rate": _rate(int(taken.sum()), len(taken)),
            "offered_minor": sum(offer.amount for offer in offered),
            "currency": offered[0].currency if offered else None,
            "reasons": dict(reasons.most_common()),
            "taken": self._group(taken, pd),
            "swap_sets": {
                "taken then and now": self._group(taken & ~declined_then, pd),
                "swapped in: declined then, taken now": self._group(taken & declined_then, pd),
                "swapped out: taken then, not now": self._group(~taken & ~declined_then, pd),
                "taken neither then nor now": self._group(~taken & declined_then, pd),
            },
            "months": self._months(taken, pd),
        }

    def _months(self, taken: NDArray[np.bool_], pd: NDArray[np.float64]) -> dict[str, Any]:
        months = self.data.months
        return {
            str(month): {
                "applications": int((months == month).sum()),
                "approval_rate": _rate(int((taken & (months == month)).sum()), int((months == month).sum())),
                **self._group(taken & (months == month), pd),
            }
            for month in np.unique(months)
        }

    def _group(self, mask: NDArray[np.bool_], pd: NDArray[np.float64]) -> dict[str, Any]:
        known = mask & self.data.matured
        scored = mask & ~np.isnan(pd)
        return {
            "count": int(mask.sum()),
            "expected_bad_rate": float(pd[scored].mean()) if scored.any() else None,
            "matured": int(known.sum()),
            "observed_bad_rate": float(self.data.bad[known].mean()) if known.any() else None,
        }


def backtest(
    data: TrainingSet,
    scorer: Scorer,
    policy: Policy,
    *,
    cut: Mapping[int, int],
    seed: Callable[[str], int],
    coalitions: Callable[[int], Coalitions] | None = None,
    progress: Progress = lambda done, total: None,
) -> Backtest:
    """Decide every application of `data` on the rung `full`; `seed` gives a decision's seed from its event_id.

    `coalitions` gives a row's score of a sequence without some of its events, where the last feature is one.
    """
    fields = data.fields.to_pylist()
    decisions = []
    for row, event_id in enumerate(data.application_id):
        application = Application(event_id, data.plan.application, int(data.root[row]), fields[row])
        limit = data.limits.get(row)
        decisions.append(
            decide(
                application,
                None if limit else data.features[row],
                scorer,
                policy,
                as_of=int(data.as_of[row]),
                cut=cut,
                seed=seed(event_id),
                limit=limit.message if limit else "",
                coalitions=None if coalitions is None else partial(coalitions, row),
            )
        )
        progress(row + 1, len(data))
    return Backtest(data, tuple(decisions))


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
