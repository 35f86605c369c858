"""The evaluation: how well PDs did on applications after the cut-off, as JSON data that the report draws.

Everything is out of time and matured, with 95% bootstrap intervals over applicants. Champion and challenger are
measured on the same resamples. Declined and immature rows are counted and their scores shown, never judged.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.models.charts import number
from obligor.models.metrics import (
    METRICS,
    Ranking,
    auc,
    bootstrap,
    by_score,
    calibration_line,
    interval,
    measure,
    psi,
    psi_bins,
)
from obligor.models.scorer import MODEL_NAMES, Scorer
from obligor.models.splits import applicant_numbers
from obligor.models.training_set import TrainingSet

__all__ = ["CLASS_ROWS_MIN", "FORMAT", "check_judged", "evaluate_scorer", "point", "reliability", "with_intervals"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FORMAT: Final = 1
BINS: Final = 10
SEGMENT_VALUES_MAX: Final = 12
CLASS_ROWS_MIN: Final = 10  # goods and bads without which a ranking metric is not shown
DRIVER_ROWS_MAX: Final = 2_000  # test rows whose contributions are averaged
CURVE_POINTS: Final = 101
PSI_ROWS_MIN: Final = 100  # training rows of a group without which its PSI says nothing
JUDGED: Final = ("auc", "ks", "brier")
HISTOGRAM_BINS: Final = 24


def check_judged(bad: Floats) -> None:
    """Raise BadInput where matured test rows hold no good or no bad."""
    if not 0 < bad.sum() < len(bad):
        raise BadInput(
            f"the test period has {int(bad.sum())} bads among {len(bad)} matured rows: nothing can be judged; "
            "move the cut-off earlier, or wait until more outcomes have matured"
        )


def evaluate_scorer(
    scorer: Scorer,
    data: TrainingSet,
    *,
    train: Bools,
    test: Bools,
    cutoff_us: int,
    segments: Sequence[str] = (),
    resamples: int = 300,
    seed: int = 0,
    ceiling: Mapping[str, float] | None = None,
    alone: Mapping[str, Floats] | None = None,
) -> dict[str, Any]:
    """Return the evaluation of `scorer` on the test rows; `train` are the rows it learned from.

    `ceiling` holds true PDs by application id, where a simulator knows them; `alone` the PDs (n,) by "trees" and by
    "sequence" that a champion that sees a sequence's score is compared with.
    Raises BadInput where the test rows hold no good or no bad.
    """
    check_judged(data.bad[test])
    bad = data.bad[test]
    pds = {name: scorer.scores(data.features, name).pd for name in MODEL_NAMES}
    champion = pds[scorer.champion]
    rng = np.random.default_rng([seed, 2])
    rankings: dict[str, Ranking] = {name: Ranking.of(bad, pd[test]) for name, pd in pds.items()}
    if ceiling is not None:
        rankings["ceiling"] = Ranking.of(bad, _true_pds(data, test, ceiling))
    parts = {} if alone is None else {name: Ranking.of(bad, pd[test]) for name, pd in alone.items()}
    whose = applicant_numbers(data)
    samples = bootstrap(rankings | parts, resamples=resamples, rng=rng, applicant=whose[test])
    train_auc = {str(name): auc(data.bad[train], pd[train]) for name, pd in pds.items() if train.any()}
    challenger = next(name for name in MODEL_NAMES if name != scorer.champion)
    return {
        "format": FORMAT,
        "champion": scorer.champion,
        "challenger": challenger,
        "cutoff_us": cutoff_us,
        "resamples": resamples,
        "seed": seed,
        "rows": _row_counts(data, train, test),
        "models": {
            name: {
                "metrics": with_intervals(measure(rankings[name]), samples[name]),
                "calibration": calibration_line(bad, _log_odds(rankings[name], len(bad))),
                "train_auc": train_auc.get(name),
                "reliability": reliability(bad, _in_rows(rankings[name])),
                "roc": _roc(rankings[name]),
            }
            for name in rankings
        },
        "difference": {
            metric: _difference(rankings, samples, scorer.champion, challenger, metric) for metric in METRICS
        },
        **_fusion(rankings[scorer.champion], samples[scorer.champion], parts, samples),
        "deciles": _deciles(bad, champion[test]),
        "strategy": {name: _strategy(bad, pds[name][test]) for name in pds},
        "distribution": _distribution(data, champion, test),
        "months": _months(data, champion, train, test, whose, resamples, rng),
        "segments": [_segment(data, name, champion, train, test, whose, resamples, rng) for name in segments],
        "stability": _stability(scorer, data, champion, train, test),
        "drivers": _drivers(scorer, data, test, rng),
        "scorecard": scorer.scorecard.to_data(),
        "categories": _category_values(scorer),
    }


def _category_values(scorer: Scorer) -> dict[str, list[str]]:
    return {f.name: [*(f.values or ()), "(unknown)"] for f in scorer.inputs.features if f.type == "category"}


def _true_pds(data: TrainingSet, test: Bools, ceiling: Mapping[str, float]) -> Floats:
    names = [data.application_id[i] for i in np.flatnonzero(test)]
    missing = [name for name in names if not 0.0 < ceiling.get(name, 0.0) < 1.0]
    if missing:
        raise BadInput(
            f"ceiling: {len(missing)} test applications have no true PD between 0 and 1, such as {missing[0]!r}"
        )
    return np.array([ceiling[name] for name in names])


def _in_rows(ranking: Ranking) -> Floats:
    """Return the probabilities in the order of the rows."""
    out = np.empty(len(ranking.pd))
    out[ranking.order] = ranking.pd
    return out


def _log_odds(ranking: Ranking, rows: int) -> Floats:
    p = np.clip(_in_rows(ranking), 1e-12, 1 - 1e-12)  # a report may clip; the decision path never does
    assert len(p) == rows
    z: Floats = np.log(p) - np.log1p(-p)
    return z


def with_intervals(values: Mapping[str, float], samples: Mapping[str, Floats]) -> dict[str, Any]:
    """Return all METRICS of a ranking with what they are in its resamples."""
    return {metric: point(values[metric], samples[metric]) for metric in METRICS}


def point(value: float, samples: Floats) -> dict[str, float | None]:
    """Return a value with the interval of its resamples (n,)."""
    found = interval(samples)
    return {"value": _number(value), "low": found[0] if found else None, "high": found[1] if found else None}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _difference(
    rankings: Mapping[str, Ranking], samples: Mapping[str, Mapping[str, Floats]], a: str, b: str, metric: str
) -> dict[str, float | None]:
    value = measure(rankings[a])[metric] - measure(rankings[b])[metric]
    return point(value, samples[a][metric] - samples[b][metric])


def _fusion(
    fused: Ranking, own: Mapping[str, Floats], parts: Mapping[str, Ranking], samples: Mapping[str, Mapping[str, Floats]]
) -> dict[str, Any]:
    """Return trees alone, sequence alone and both on the same rows, and what is gained; nothing without a sequence."""
    if not parts:
        return {}
    values = {name: measure(ranking) for name, ranking in {**parts, "fused": fused}.items()}
    drawn = {**samples, "fused": own}
    gained = {
        metric: point(values["fused"][metric] - values["trees"][metric], own[metric] - samples["trees"][metric])
        for metric in METRICS
    }
    models = {name: {"metrics": with_intervals(found, drawn[name])} for name, found in values.items()}
    return {"fusion": {"models": models, "difference": gained}}


def _row_counts(data: TrainingSet, train: Bools, test: Bools) -> dict[str, Any]:
    statuses, counts = np.unique(data.status, return_counts=True)
    return {
        "all": len(data),
        "by_status": {str(s): int(n) for s, n in zip(statuses, counts, strict=True)},
        "train": int(train.sum()),
        "train_bads": int(data.bad[train].sum()),
        "test": int(test.sum()),
        "test_bads": int(data.bad[test].sum()),
        "purged": int((data.matured & ~train & ~test).sum()),
    }


def _wilson(bads: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of a rate (Wilson 1927)."""
    z = 1.959963984540054
    p, z2 = bads / n, z * z / n
    middle = (p + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n)))
    return max(0.0, middle - half), min(1.0, middle + half)


def _group(bad: Floats, pd: Floats) -> dict[str, Any]:
    """Return how one group of rows was predicted and what it did."""
    n, bads = len(bad), float(bad.sum())
    low, high = _wilson(bads, n)
    return {"rows": n, "bads": int(bads), "predicted": float(pd.mean()), "observed": bads / n, "low": low, "high": high}


def reliability(bad: Floats, pd: Floats) -> list[dict[str, Any]]:
    """Return what was predicted of each tenth of the rows, and what it did."""
    order = by_score(bad, pd)
    return [_group(bad[rows], pd[rows]) for rows in np.array_split(order, min(BINS, len(order)))]


def _roc(ranking: Ranking) -> dict[str, list[float]]:
    """Return the shares of goods and of bads at or above falling scores, thinned to CURVE_POINTS."""
    goods, bads = (np.concatenate([[0.0], np.cumsum(part[::-1])]) for part in ranking.curve())
    places = np.unique(np.linspace(0, len(goods) - 1, min(4 * CURVE_POINTS, len(goods))).astype(np.int64))
    x, y = goods[places] / goods[-1], bads[places] / bads[-1]
    return {"goods": _rounded(x), "bads": _rounded(y)}


def _rounded(values: Floats, digits: int = 5) -> list[float]:
    return [round(float(v), digits) for v in values]


def _deciles(bad: Floats, pd: Floats) -> list[dict[str, Any]]:
    """Return ten groups from riskiest to safest, with the share of all bads caught so far."""
    order = by_score(bad, -pd)
    out, caught = [], 0.0
    for rows in np.array_split(order, min(BINS, len(order))):
        caught += float(bad[rows].sum())
        out.append(
            {**_group(bad[rows], pd[rows]), "pd_min": float(pd[rows].min()), "caught": caught / float(bad.sum())}
        )
    return out


def _strategy(bad: Floats, pd: Floats) -> list[dict[str, float]]:
    """Return, for approving the safest share, the bad rate among the approved and the cut-off PD."""
    order = by_score(bad, pd)
    cumulated = np.cumsum(bad[order])
    out = []
    for percent in range(5, 101, 5):
        n = max(1, round(len(order) * percent / 100))
        out.append({"approved": percent / 100, "bad_rate": float(cumulated[n - 1]) / n, "pd": float(pd[order[n - 1]])})
    return out


def _distribution(data: TrainingSet, pd: Floats, test: Bools) -> dict[str, Any]:
    """Return histograms of log-odds (in tenths of a unit range) of goods, bads and the declined of the test period."""
    z = np.log(pd) - np.log1p(-pd)
    since = data.as_of >= int(data.as_of[test].min())
    declined = since & (data.status == "declined") & ~np.isnan(pd)
    shown = z[test | declined]
    low, high = (float(v) for v in np.quantile(shown, [0.002, 0.998]))
    edges = np.linspace(low, max(high, low + 1e-6), HISTOGRAM_BINS + 1)

    def counts(mask: Bools) -> list[int]:
        return [int(n) for n in np.histogram(np.clip(z[mask], edges[0], edges[-1]), edges)[0]]

    groups = {"good": test & (data.bad == 0), "bad": test & (data.bad == 1), "declined": declined}
    return {
        "edges": _rounded(edges),
        **{name: counts(mask) for name, mask in groups.items()},
        "mean_pd": {name: _number(float(pd[mask].mean())) if mask.any() else None for name, mask in groups.items()},
    }


def _judged(bad: Floats, pd: Floats, whose: Ints, resamples: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return a group with AUC, KS and Brier score and their intervals, where it has enough of both classes."""
    group = _group(bad, pd)
    if min(group["bads"], group["rows"] - group["bads"]) < CLASS_ROWS_MIN:
        return {**group, **dict.fromkeys(JUDGED)}
    ranking = {"one": Ranking.of(bad, pd)}
    samples = bootstrap(ranking, resamples=min(resamples, 200), rng=rng, applicant=whose)["one"]
    values = measure(ranking["one"])
    return {**group, **{metric: point(values[metric], samples[metric]) for metric in JUDGED}}


def _months(
    data: TrainingSet, pd: Floats, train: Bools, test: Bools, whose: Ints, resamples: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Return each month: rows by status, PSI of all its scores against the training rows', and of its training or test
    rows what was predicted and what happened.
    """
    edges = psi_bins(pd[train])
    out = []
    for month in np.unique(data.months):
        here = data.months == month
        scored = here & ~data.limited
        statuses, counts = np.unique(data.status[here], return_counts=True)
        row: dict[str, Any] = {
            "month": str(month),
            "by_status": {str(s): int(n) for s, n in zip(statuses, counts, strict=True)},
            "mean_pd": float(pd[scored].mean()) if scored.any() else None,
            "psi": psi(pd[train], pd[scored], edges) if scored.any() else None,
        }
        for name, mask in (("train", train & here), ("test", test & here)):
            if mask.any():
                row[name] = _judged(data.bad[mask], pd[mask], whose[mask], resamples, rng)
        out.append(row)
    return out


def _segment(
    data: TrainingSet, name: str, pd: Floats, train: Bools, test: Bools, whose: Ints, resamples: int,
    rng: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    """Return how each value of a segment did on the test rows; numbers fall into quarters of the training rows."""
    values = data.segment(name)
    labels = values if values.dtype.kind == "U" else _quarters(values.astype(np.float64), train)
    found, counts = np.unique(labels[test], return_counts=True)
    kept = [str(v) for v in found[np.argsort(-counts, kind="stable")][:SEGMENT_VALUES_MAX]]
    if values.dtype.kind != "U":
        kept.sort()
    rows = [
        {"value": value, "psi": _psi_within(pd, train, test, labels == value)}
        | _judged(data.bad[mask], pd[mask], whose[mask], resamples, rng)
        for value in kept
        for mask in (test & (labels == value),)
    ]
    return {"name": name, "values": rows, "values_left_out": max(0, len(found) - len(kept))}


def _psi_within(pd: Floats, train: Bools, test: Bools, here: Bools) -> float | None:
    """Return the PSI of the score within a group; None where the group has too few training rows to compare with."""
    before = pd[train & here]
    return psi(before, pd[test & here], psi_bins(before)) if len(before) >= PSI_ROWS_MIN else None


def _quarters(values: Floats, train: Bools) -> NDArray[np.str_]:
    edges = psi_bins(values[train], 4)
    bounds = ["", *(number(edge) for edge in edges), ""]
    names = [
        f"{i + 1}: {f'below {high}' if not low else f'from {low}' if not high else f'{low} to {high}'}"
        for i, (low, high) in enumerate(itertools.pairwise(bounds))
    ]
    place = np.where(np.isnan(values), len(names), np.searchsorted(edges, values, side="right"))
    found: NDArray[np.str_] = np.array([*names, "null"], dtype=np.str_)[place]
    return found


def _stability(scorer: Scorer, data: TrainingSet, pd: Floats, train: Bools, test: Bools) -> dict[str, Any]:
    """Return PSI of the score and of every scored feature from training to test rows, and the share of nulls."""
    features = []
    for i, spec in enumerate(scorer.inputs.features):
        if spec.scored:
            before, after = data.features[train, i], data.features[test, i]
            codes: Floats = np.arange(len(spec.values or ()), dtype=np.float64) + 0.5
            edges = codes if spec.type == "category" else psi_bins(before)
            features.append(
                {
                    "name": spec.name,
                    "psi": psi(before, after, edges),
                    "null_train": float(np.isnan(before).mean()),
                    "null_test": float(np.isnan(after).mean()),
                }
            )
    features.sort(key=lambda f: (-float(str(f["psi"])), str(f["name"])))
    return {"score_psi": psi(pd[train], pd[test], psi_bins(pd[train])), "features": features}


def _drivers(scorer: Scorer, data: TrainingSet, test: Bools, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return the scored features by mean absolute contribution over (a sample of) the test rows, in log-odds."""
    rows = np.flatnonzero(test)
    if len(rows) > DRIVER_ROWS_MAX:
        rows = np.sort(rng.choice(rows, DRIVER_ROWS_MAX, replace=False))
    parts = np.array([scorer.contributions(data.features[row]) for row in rows])  # (rows, features)
    out = [
        {
            "name": spec.name,
            "reason": spec.reason or "",
            "unit": spec.unit,
            "description": spec.description,
            "monotone": spec.monotone,
            "mean_absolute": float(np.abs(parts[:, i]).mean()),
            "adverse_share": float((parts[:, i] > 0).mean()),
        }
        for i, spec in enumerate(scorer.inputs.features)
        if spec.scored
    ]
    return sorted(out, key=lambda d: (-float(str(d["mean_absolute"])), str(d["name"])))
