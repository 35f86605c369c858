"""The report's sections: ranking, probabilities, strategy, time, segments, drivers, stability, scorecard."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from obligor.models.charts import Plot, legend, number, percent

__all__ = ["sections"]

Evaluation = Mapping[str, Any]

NAMES: Final = {"xgboost": "boosted trees", "scorecard": "scorecard", "ceiling": "true probabilities (ceiling)"}
MEASURES: Final = {
    "auc": ("AUC", ".4f"),
    "gini": ("Gini", ".4f"),
    "ks": ("KS", ".4f"),
    "brier": ("Brier score", ".5f"),
    "log_loss": ("log loss", ".5f"),
    "observed_to_expected": ("observed ÷ expected bads", ".3f"),
}
FEATURES_SHOWN: Final = 20
STATUS_COLOURS: Final = {"matured": "champion", "immature": "immature", "declined": "declined"}


def sections(evaluation: Evaluation) -> list[str]:
    """Return the sections' HTML in the order of the page."""
    return [
        _ranking(evaluation),
        *([_fusion(evaluation)] if "fusion" in evaluation else []),
        *([_heads(evaluation["heads"])] if "heads" in evaluation else []),
        _probabilities(evaluation),
        _strategy(evaluation),
        _time(evaluation),
        *(_segment(segment) for segment in evaluation["segments"]),
        _drivers(evaluation),
        _stability(evaluation),
        _scorecard(evaluation),
    ]


def _colour(evaluation: Evaluation, name: str) -> str:
    if name == "ceiling":
        return "ceiling"
    return "champion" if name == evaluation["champion"] else "challenger"


def _section(title: str, words: str, *cards: str) -> str:
    body = cards[0] if len(cards) == 1 else f'<div class="pair">{"".join(cards)}</div>'
    return f"<section><h2>{escape(title)}</h2><p>{words}</p>{body}</section>"


def _card(title: str, *parts: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>{"".join(parts)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a table of ready HTML cells; the first `left` columns are text, the others numbers."""

    def kind(i: int) -> str:
        return "" if i < left else ' class="n"'

    top = "".join(f"<th{kind(i)}>{escape(text)}</th>" for i, text in enumerate(head))
    body = "".join(f"<tr>{''.join(f'<td{kind(i)}>{cell}</td>' for i, cell in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'


def _ranking(evaluation: Evaluation) -> str:
    roc = Plot((0, 1), (0, 1), "share of goods declined", "share of bads declined", x_format=percent, y_format=percent)
    roc.line([(0, 0), (1, 1)], "other", dashed=True)
    keys = []
    for name, model in reversed(evaluation["models"].items()):
        colour, area = _colour(evaluation, name), model["metrics"]["auc"]["value"]
        curve = list(zip(model["roc"]["goods"], model["roc"]["bads"], strict=True))
        roc.line(curve, colour, dashed=name == "ceiling", tip=f"{NAMES[name]}: AUC {area:.3f}")
        keys.append((colour, f"{NAMES[name]}, AUC {area:.3f}"))
    deciles = evaluation["deciles"]
    top = 1.08 * max(d["high"] for d in deciles)
    places = [(i + 1.0, str(i + 1)) for i in range(len(deciles))]
    bars = Plot((0.4, len(deciles) + 0.6), (0, top), "tenth of applicants, riskiest first", "bad rate",
                y_format=percent, x_labels=places)  # fmt: skip
    for i, d in enumerate(deciles):
        tip = f"tenth {i + 1}: {d['bads']} of {d['rows']} bad, {percent(round(d['caught'], 3))} of all bads so far"
        bars.bar(i + 1, 0.72, 0, d["observed"], "champion", tip=tip)
        bars.dot(i + 1, d["predicted"], "challenger", tip=f"predicted {percent(d['predicted'])}")
    caught = deciles[min(2, len(deciles) - 1)]["caught"]
    words = (
        f"Declining the riskiest three tenths would have avoided {percent(round(caught, 3))} of all bads. "
        "A curve further to the upper left separates better; the dashed diagonal is chance."
    )
    observed = legend(("champion", "observed"), ("challenger", "predicted by the champion"))
    return _section(
        "Does it rank?", words,
        _card("Bads against goods declined (ROC)", roc.svg("ROC curves of all models"), legend(*reversed(keys))),
        _card("Bad rate by tenth of the score", bars.svg("Bad rate by tenth of applicants"), observed),
    )  # fmt: skip


def _fusion(evaluation: Evaluation) -> str:
    """Return what trees and sequence are worth alone and together, on the same test rows."""
    fusion = evaluation["fusion"]
    models, gained = fusion["models"], fusion["difference"]
    measured = [models[name]["metrics"] for name in ("trees", "sequence", "fused")]
    rows = [
        [name, *(_spread(one[metric], form) for one in measured), _spread(gained[metric], f"+{form}")]
        for metric, (name, form) in MEASURES.items()
    ]
    words = (
        "The same search and the same rows without the sequence, the sequence by heads that learnt without the trees, "
        "and both together, which is the champion: its score says what the sequence adds to the other features. "
        "The difference is taken on the same resamples, so that luck common to both falls out."
    )
    if "ceiling" in evaluation["models"]:
        top = evaluation["models"]["ceiling"]["metrics"]["auc"]["value"]
        trees, fused = (models[name]["metrics"]["auc"]["value"] for name in ("trees", "fused"))
        if top > trees < fused:
            share = (fused - trees) / (top - trees)
            words += f" Of the AUC that the trees lack to the true probabilities {share:.0%} is gained."
    head = ["measure", "trees alone", "sequence alone", "together", "together − trees"]
    return _section("What does the sequence add?", words, f'<div class="card">{_table(head, rows)}</div>')


def _heads(heads: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what further heads foretell, and how it came out: no decision asks them."""
    words = (
        "Other questions to the same sequence, on applications after the cut-off. No tree sees the answers, and no "
        "decision asks for them. Of a loan that is not mature the months count that it has lived."
    )
    cards = {"binary": _outcome_card, "share": _loss_card, "hazard": _hazard_cards}
    found = "".join(cards[judged["kind"]](name, judged) for name, judged in heads.items())
    return _section("What else does the sequence foretell?", words, found)


def _outcome_card(name: str, judged: Mapping[str, Any]) -> str:
    title = f"{name}: {judged['bads']:,} of {judged['rows']:,} applications"
    if judged["metrics"] is None:
        return _card(title, "<p>Too few of a kind are known to judge it.</p>")
    rows = [[words, _spread(judged["metrics"][metric], form)] for metric, (words, form) in MEASURES.items()]
    if (line := judged["calibration"]) is not None:
        rows.append(["calibration slope", f"{line['slope']:.2f} ± {1.96 * line['slope_error']:.2f}"])
    return _card(title, _table(["measure", "value"], rows))


def _loss_card(name: str, judged: Mapping[str, Any]) -> str:
    title = f"{name}, as a share of what was lent: {judged['rows']:,} applications"
    if judged["metrics"] is None:
        return _card(title, "<p>Too few losses are known to judge it.</p>")
    measured = judged["metrics"]
    names = {
        "observed": ("lost", ".4f"), "expected": ("expected", ".4f"),
        "observed_to_expected": ("lost ÷ expected", ".3f"),
        "mean_absolute_error": ("mean absolute error", ".4f"), "explained": ("share of the spread explained", ".3f"),
    }  # fmt: skip
    rows = [[words, _spread(measured[metric], form)] for metric, (words, form) in names.items()]
    tenths = [
        [
            f"{one['rows']:,}",
            _rate(one["predicted"]),
            _rate(one["observed"]),
            f"{_rate(one['low'])} to {_rate(one['high'])}",
        ]
        for one in judged["reliability"]
    ]
    return _card(
        title, _table(["measure", "value"], rows),
        f"<details><summary>By tenth of what was expected</summary>"
        f"{_table(['rows', 'expected', 'lost', '95% interval'], tenths, left=0)}</details>",
    )  # fmt: skip


def _hazard_cards(name: str, judged: Mapping[str, Any]) -> str:
    months = judged["months"]
    rates = [
        (m["month"], m["default"]["expected"], m["default"]["observed"], m["at_risk"]) for m in months if m["at_risk"]
    ]
    top = 1.2 * max([max(expected, observed) / n for _, expected, observed, n in rates], default=1.0)
    labels = [(float(m["month"]), str(m["month"])) for m in months]
    plot = Plot((0.5, len(months) + 0.5), (0, max(top, 1e-6)), "month of the loan", "share that defaults in it",
                width=940, height=250, y_format=percent, x_labels=labels)  # fmt: skip
    plot.line([(month, expected / n) for month, expected, _, n in rates], "challenger")
    for month, expected, observed, n in rates:
        tip = f"month {month}: {observed} of {n} at risk, {expected:.1f} expected"
        plot.dot(month, observed / n, "champion", tip=tip)
    rows = [
        [str(m["month"]), f"{m['at_risk']:,}", *_observed(m["default"]), *_observed(m["repaid"]),
         f"{m['by_then']['rows']:,}", _optional(m["by_then"]["observed_to_expected"], ".3f"),
         _optional(m["by_then"]["auc"], ".3f")]
        for m in months
    ]  # fmt: skip
    head = ["month", "at risk", "defaulted / expected", "÷", "repaid / expected", "÷", "old enough",
            "default by then ÷ expected", "AUC of it"]  # fmt: skip
    title = f"{name}: {judged['rows']:,} loans, {judged['immature']:,} of them not mature"
    keys = legend(("champion", "observed"), ("challenger", "expected"))
    return _card(title, plot.svg("Default by month, observed and expected"), keys, _table(head, rows, left=0))


def _observed(ended: Mapping[str, Any]) -> tuple[str, str]:
    return f"{ended['observed']:,} / {ended['expected']:,.1f}", _optional(ended["observed_to_expected"], ".2f")


def _optional(point: Mapping[str, float | None] | None, form: str) -> str:
    return '<span class="soft">too few</span>' if point is None else _spread(point, form)


def _spread(point: Mapping[str, float | None], form: str) -> str:
    """Return a value over its interval."""
    if point["value"] is None:
        return '<span class="soft">not known</span>'
    if point["low"] is None or point["high"] is None:
        return f"{point['value']:{form}}"
    return f'{point["value"]:{form}}<br><span class="soft">{point["low"]:{form}} to {point["high"]:{form}}</span>'


def _probabilities(evaluation: Evaluation) -> str:
    model = evaluation["models"][evaluation["champion"]]
    groups = model["reliability"]
    top = 1.08 * max(max(g["high"], g["predicted"]) for g in groups)
    plot = Plot(
        (0, top), (0, top), "predicted PD (mean of a tenth)", "observed bad rate", x_format=percent, y_format=percent
    )
    plot.line([(0, 0), (top, top)], "other", dashed=True)
    for g in groups:
        tip = f"predicted {percent(g['predicted'])}, observed {percent(g['observed'])} ({g['bads']} of {g['rows']})"
        plot.dot(g["predicted"], g["observed"], "champion", low=g["low"], high=g["high"], tip=tip)
    inside = sum(g["low"] <= g["predicted"] <= g["high"] for g in groups)
    words = (
        f"For {inside} of {len(groups)} tenths of the score the predicted PD lies within the 95% interval of the "
        "observed rate. Dots on the dashed line are right on average; above it, risk is understated."
    )
    return _section(
        "Can the probabilities be trusted?", words,
        _card("Reliability", plot.svg("Observed bad rate against predicted PD"),
              legend(("champion", "a tenth of the test rows, with 95% interval"))),
        _card("Who scores where", _distribution(evaluation["distribution"]),
              legend(("good", "turned good"), ("bad", "turned bad"), ("declined", "declined at the time, not judged"))),
    )  # fmt: skip


def _distribution(data: Mapping[str, Any]) -> str:
    edges = data["edges"]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    shares = {name: [n / max(1, sum(data[name])) for n in data[name]] for name in ("good", "bad", "declined")}
    top = 1.08 * max(max(values) for values in shares.values())
    odds = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    ticks = [(z, percent(p)) for p in odds if edges[0] <= (z := math.log(p / (1 - p))) <= edges[-1]]
    labels = _apart(ticks, (edges[-1] - edges[0]) / 9)
    x_title = "predicted PD (log-odds scale)"
    plot = Plot((edges[0], edges[-1]), (0, top), x_title, "share of the group", y_format=percent, x_labels=labels)
    for name in ("declined", "good", "bad"):
        if sum(data[name]):
            points = list(zip(middles, shares[name], strict=True))
            plot.area(points, name)
            mean = data["mean_pd"][name]
            plot.line(points, name, tip=f"{sum(data[name]):,} {name}, mean PD {percent(mean)}")
    return plot.svg("Distribution of predicted PD by what happened")


def _rate(value: float) -> str:
    return percent(round(value, 4))


def _apart(ticks: Sequence[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Return the ticks that keep at least that distance from the one before."""
    kept: list[tuple[float, str]] = []
    for tick in ticks:
        if not kept or tick[0] - kept[-1][0] >= least:
            kept.append(tick)
    return kept


def _strategy(evaluation: Evaluation) -> str:
    curves = evaluation["strategy"]
    top = 1.1 * max(max(point["bad_rate"] for point in curve) for curve in curves.values())
    plot = Plot(
        (0, 1),
        (0, top),
        "share approved, safest first",
        "bad rate among the approved",
        x_format=percent,
        y_format=percent,
    )
    order = [evaluation["challenger"], evaluation["champion"]]
    for name in order:
        points = [(p["approved"], p["bad_rate"]) for p in curves[name]]
        plot.line(points, _colour(evaluation, name))
        for p in curves[name]:
            tip = f"{NAMES[name]}: approve {percent(p['approved'])}, bad rate {_rate(p['bad_rate'])}"
            plot.dot(p["approved"], p["bad_rate"], _colour(evaluation, name), tip=tip)
    champion, challenger = curves[evaluation["champion"]], curves[evaluation["challenger"]]
    rows = [
        [percent(a["approved"]), percent(a["pd"]), _rate(a["bad_rate"]), _rate(b["bad_rate"])]
        for a, b in zip(champion, challenger, strict=True)
        if round(a["approved"] * 100) % 10 == 0
    ]
    head = ["approve the safest", "PD cut-off", "bad rate", f"with the {NAMES[evaluation['challenger']]}"]
    words = (
        "Among applications that were approved at the time, as if fewer had been. Those declined then have no outcome, "
        "so the curve says nothing about approving more."
    )
    return _section(
        "What would a cut-off cost?", words,
        _card("Approvals against bad rate", plot.svg("Bad rate among the approved by share approved"),
              legend(*((_colour(evaluation, name), NAMES[name]) for name in reversed(order)))),
        _card("Cut-offs", _table(head, rows, left=0)),
    )  # fmt: skip


def _time(evaluation: Evaluation) -> str:
    months = evaluation["months"]
    every = max(1, math.ceil(len(months) / 10))
    labels = [(float(i), m["month"]) for i, m in enumerate(months) if i % every == 0]
    tested = [i for i, m in enumerate(months) if "test" in m]
    statuses = sorted({s for m in months for s in m["by_status"]}, key=_status_rank)
    total = max(sum(m["by_status"].values()) for m in months)
    span = (-0.6, len(months) - 0.4)
    volume = Plot(
        span, (0, 1.12 * total), "month of application", "applications", width=940, height=250, x_labels=labels
    )
    for i, m in enumerate(months):
        base = 0
        for status in statuses:
            n = m["by_status"].get(status, 0)
            volume.bar(i, 0.8, base, base + n, _status_colour(status), tip=f"{m['month']}: {n:,} {status}")
            base += n
    volume.rule(tested[0] - 0.5, "test starts at the cut-off")
    keys = [(_status_colour(s), s) for s in statuses if not s.startswith("excluded")]
    keys += [("other", "excluded")] if any(s.startswith("excluded") for s in statuses) else []
    level, rank = _level_plot(months, span, labels, tested), _rank_plot(months, span, labels, tested)
    pair = f'<div class="pair">{level}{rank}</div>'
    words = "Each month's applications by what is known of them, then how the score did in each."
    card = _card("Applications", volume.svg("Applications by month and status"), legend(*keys))
    return _section("Does it hold over time?", words, card + pair + _month_table(months))


def _month_table(months: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for m in months:
        slice_ = "test" if "test" in m else "training" if "train" in m else ""
        group = m.get("test") or m.get("train") or {}
        judged = [f"{group[k]['value']:.3f}" if group.get(k) else "" for k in ("auc", "ks", "brier")]
        rates = [_rate(group["observed"]), _rate(group["predicted"])] if group else ["", ""]
        counts = [f"{group['rows']:,}", f"{group['bads']:,}"] if group else ["", ""]
        rows.append([m["month"], slice_, *counts, *rates, *judged, f"{m['psi']:.3f}"])
    head = ["month", "used for", "rows", "bads", "observed", "predicted", "AUC", "KS", "Brier", "PSI of the score"]
    return f'<div class="card"><details><summary>All months</summary>{_table(head, rows, left=2)}</details></div>'


def _status_rank(status: str) -> tuple[int, str]:
    order = ["matured", "immature", "declined"]
    return (order.index(status) if status in order else len(order), status)


def _status_colour(status: str) -> str:
    return STATUS_COLOURS.get(status, "other")


def _level_plot(
    months: Sequence[Mapping[str, Any]], span: tuple[float, float], labels: list[tuple[float, str]], tested: list[int]
) -> str:
    groups = [(i, m.get("test") or m.get("train")) for i, m in enumerate(months)]
    known = [(i, g) for i, g in groups if g]
    top = 1.08 * max(max(g["high"], g["predicted"]) if g["rows"] >= 20 else g["predicted"] for _, g in known)
    plot = Plot(span, (0, top), "month of application", "bad rate", y_format=percent, x_labels=labels[::2])
    plot.line([(i, g["predicted"]) for i, g in known], "challenger")
    for i, g in known:
        observed = f"observed {_rate(g['observed'])} ({g['bads']} of {g['rows']})"
        tip = f"{months[i]['month']}: {observed}, predicted {_rate(g['predicted'])}"
        plot.dot(i, min(g["observed"], top), "champion", low=g["low"], high=min(g["high"], top), tip=tip)
    plot.rule(tested[0] - 0.5, "test")
    keys = legend(("champion", "observed, with 95% interval"), ("challenger", "predicted"))
    return _card("Predicted and observed", plot.svg("Predicted and observed bad rate by month"), keys)


def _rank_plot(
    months: Sequence[Mapping[str, Any]], span: tuple[float, float], labels: list[tuple[float, str]], tested: list[int]
) -> str:
    judged = [
        (i, name, m[name]) for i, m in enumerate(months) for name in ("train", "test") if m.get(name, {}).get("auc")
    ]
    if not judged:
        return _card("AUC by month", "<p>No month has enough goods and bads to be judged alone.</p>")
    low = min(0.5, *(g["auc"]["low"] or 0.5 for _, _, g in judged))
    plot = Plot(span, (low, 1.0), "month of application", "AUC", x_labels=labels[::2])
    for i, name, g in judged:
        auc = g["auc"]
        tip = f"{months[i]['month']} ({name}): AUC {auc['value']:.3f}"
        plot.dot(i, auc["value"], "other" if name == "train" else "champion", low=auc["low"], high=auc["high"], tip=tip)
    plot.rule(tested[0] - 0.5, "test")
    keys = legend(("champion", "test"), ("other", "training rows, seen by the model"))
    return _card("AUC by month", plot.svg("AUC by month with intervals"), keys)


def _segment(segment: Mapping[str, Any]) -> str:
    rows = []
    aucs = [v["auc"] for v in segment["values"] if v["auc"]]
    low = min([0.5, *(a["low"] for a in aucs if a["low"] is not None)])
    for v in segment["values"]:
        auc = v["auc"]
        shown = _gauge(_pin(auc, low), f"{auc['value']:.3f}") if auc else '<span class="soft">too few</span>'
        ratio = v["observed"] / v["predicted"]
        rows.append(
            [escape(v["value"]), f"{v['rows']:,}", f"{v['bads']:,}", _rate(v["observed"]),
             _rate(v["predicted"]), f"{ratio:.2f}",
             "" if v["psi"] is None else f"{v['psi']:.3f}", shown]
        )  # fmt: skip
    left_out = segment["values_left_out"]
    words = (
        f"{left_out} rarer values are not shown."
        if left_out
        else "Test rows; a dash spans the 95% interval of the AUC."
    )
    head = [segment["name"], "rows", "bads", "observed", "predicted", "observed ÷ predicted", "PSI", "AUC"]
    return _section(f"By {segment['name']}", words, f'<div class="card">{_table(head, rows)}</div>')


def _pin(auc: Mapping[str, float | None], low: float) -> str:
    """Return a small scale from `low` to 1 with the value and its interval."""

    def place(value: float) -> float:
        return 100 * (value - low) / (1 - low)

    if auc["low"] is None or auc["high"] is None or auc["value"] is None:
        return ""
    left, width = place(auc["low"]), place(auc["high"]) - place(auc["low"])
    return (
        f'<span class="track"><span class="span" style="left:{left:.1f}%;width:{width:.1f}%"></span>'
        f'<span class="pin" style="left:{place(auc["value"]):.1f}%"></span></span>'
    )


def _gauge(track: str, text: str) -> str:
    return f'<span class="gauge">{track}<span>{text}</span></span>'


def _track(share: float, colour: str = "champion") -> str:
    return f'<span class="track"><i class="{colour}" style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></i></span>'


def _drivers(evaluation: Evaluation) -> str:
    drivers = [d for d in evaluation["drivers"] if d["mean_absolute"] > 0]
    top = max((d["mean_absolute"] for d in drivers), default=1.0)
    arrows = {1: "risk rises with it", -1: "risk falls with it", 0: "either way"}
    rows = [
        [f"<b>{escape(d['name'])}</b><br><span class=soft>{escape(d['description'])}</span>", escape(d["reason"]),
         arrows[d["monotone"]], _gauge(_track(d["mean_absolute"] / top), f"{d['mean_absolute']:.3f}")]
        for d in drivers[:FEATURES_SHOWN]
    ]  # fmt: skip
    more = f" The {len(drivers) - FEATURES_SHOWN} weaker ones are in the JSON." if len(drivers) > FEATURES_SHOWN else ""
    idle = len(evaluation["drivers"]) - len(drivers)
    unused = f" {idle} scored features moved no score." if idle else ""
    words = (
        "How far each feature moves a score, on average, away from the reference applicant, in log-odds: the same "
        f"exact contributions that reasons are made of.{more}{unused}"
    )
    head = ["feature", "reason", "declared direction", "mean contribution (log-odds)"]
    return _section("What drives the score?", words, f'<div class="card">{_table(head, rows, left=3)}</div>')


def _stability(evaluation: Evaluation) -> str:
    features = evaluation["stability"]["features"]
    rows = [
        [escape(f["name"]), _gauge(_track(f["psi"] / 0.5, _psi_colour(f["psi"])), f"{f['psi']:.3f}"),
         percent(round(f["null_train"], 3)), percent(round(f["null_test"], 3))]
        for f in features[:FEATURES_SHOWN]
    ]  # fmt: skip
    moved = sum(f["psi"] >= 0.1 for f in features)
    words = (
        f"{moved} of {len(features)} scored features have a PSI of 0.1 or more between training and test rows. "
        "Lifetime counts drift by nature, because histories grow; a sudden change of nulls points at a broken source."
    )
    head = ["feature", "PSI", "null in training", "null in test"]
    return _section("Did the inputs move?", words, f'<div class="card">{_table(head, rows)}</div>')


def _psi_colour(value: float) -> str:
    return "good" if value < 0.1 else "challenger" if value < 0.25 else "bad"


def _scorecard(evaluation: Evaluation) -> str:
    cards = sorted(evaluation["scorecard"]["cards"], key=lambda c: -float(c["information_value"]))
    parts = []
    for card in cards:
        edges = card["edges"]
        bins = evaluation["categories"].get(card["feature"]) or [_bin_name(i, edges) for i in range(len(edges) + 1)]
        rows = [
            [escape(name), f"{n:,}", percent(round(b / n, 4)) if n else "", f"{points:+.1f}"]
            for name, n, b, points in zip([*bins, "null"], card["rows"], card["bads"], card["points"], strict=True)
            if n
        ]
        table = _table(["value", "rows", "bad rate", "points"], rows)
        title = f"{card['feature']} (information value {card['information_value']:.2f})"
        parts.append(f"<details><summary>{escape(title)}</summary>{table}</details>")
    words = "The fallback where the champion cannot be asked. Points add up; 20 more double the odds of good."
    return _section("The scorecard", words, f'<div class="card">{"".join(parts)}</div>')


def _bin_name(i: int, edges: Sequence[float]) -> str:
    if not edges:
        return "any value"
    if i == 0:
        return f"below {number(edges[0])}"
    if i == len(edges):
        return f"from {number(edges[-1])}"
    return f"{number(edges[i - 1])} to {number(edges[i])}"
