"""The evaluation as one self-contained page: what a risk manager asks, in the order in which it is asked.

First the answers in words and five figures, then the plots behind them, then how it was made. Pure text from the
evaluation's JSON: the same data gives the same page, so a report is never stored in a bundle, only rendered from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Final

import numpy as np

from obligor.models.bundle import Bundle
from obligor.models.charts import number, percent
from obligor.models.report_sections import sections

__all__ = ["render_report", "write_report"]

# How results are put into words; customary readings, not tests.
GINI_GOOD: Final = 0.4
GINI_FAIR: Final = 0.2
PSI_STABLE: Final = 0.1
PSI_MOVED: Final = 0.25
OPTIMISM_MAX: Final = 0.08  # AUC lost from training to test before it is called learning by heart
NAMES: Final = {"xgboost": "boosted trees", "scorecard": "scorecard", "ceiling": "true probabilities"}

Verdict = tuple[str, str, str]  # ok | look | stop, heading, sentence


def write_report(bundle: Bundle, path: Path, evaluation: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a bundle's evaluation (its own, or a newer one) to `path`, all or nothing."""
    page = render_report(
        bundle.evaluation if evaluation is None else evaluation,
        training=bundle.training,
        outcome=bundle.outcome,
        bundle_hash=bundle.hash,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
    return path


def render_report(
    evaluation: Mapping[str, Any], *, training: Mapping[str, Any], outcome: Mapping[str, Any], bundle_hash: str
) -> str:
    """Return the page; `training` and `outcome` are those of the bundle."""
    body = "\n".join(
        [
            _heading(evaluation, outcome, bundle_hash),
            _verdict_list(verdicts(evaluation)),
            _figures(evaluation),
            *sections(evaluation),
            _provenance(training, evaluation),
        ]
    )
    template = resources.files("obligor.models").joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(title=f"Evaluation of {bundle_hash[:12]}", body=body)


def verdicts(evaluation: Mapping[str, Any]) -> list[Verdict]:
    """Return what the evaluation says, in words, each with how it should be taken."""
    found = [_ranking_verdict(evaluation), _challenger_verdict(evaluation), _level_verdict(evaluation)]
    if "fusion" in evaluation:
        found.append(_fusion_verdict(evaluation["fusion"]["difference"]["auc"]))
    found.append(_stability_verdict(evaluation))
    model = evaluation["models"][evaluation["champion"]]
    lost = (model["train_auc"] or 0.0) - model["metrics"]["auc"]["value"]
    if lost > OPTIMISM_MAX:
        text = f"AUC falls by {lost:.3f} from training to test: part was learned by heart, or times changed."
        found.append(("look", "Overfit or drift", text))
    if "ceiling" in evaluation["models"]:
        found.append(_ceiling_verdict(evaluation))
    return found


def _ranking_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    gini = evaluation["models"][evaluation["champion"]]["metrics"]["gini"]
    value, low = gini["value"], gini["low"]
    spread = f"Gini {value:.2f}, 95% interval {_range(gini, '.2f')}"
    if low is None or low <= 0:
        return "stop", "Does not rank", f"{spread}: on these loans it cannot be told from chance."
    words = {True: "Ranks well", False: "Ranks fairly"}[value >= GINI_GOOD] if value >= GINI_FAIR else "Ranks weakly"
    caught = next(d["caught"] for d in evaluation["deciles"][1:2] or evaluation["deciles"])
    text = f"{spread}. The riskiest fifth of applicants holds {percent(round(caught, 3))} of all bads."
    return ("ok" if value >= GINI_FAIR else "look"), words, text


def _challenger_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    champion, challenger = (NAMES[evaluation[role]] for role in ("champion", "challenger"))
    difference = evaluation["difference"]["gini"]
    spread = f"{difference['value']:+.3f} Gini, 95% interval {_range(difference, '+.3f')} on the same loans"
    if difference["low"] is not None and difference["low"] > 0:
        return "ok", f"Beats the {challenger}", f"The {champion} gain {spread}."
    if difference["high"] is not None and difference["high"] < 0:
        return "stop", f"Loses to the {challenger}", f"{spread}: the challenger ranks better."
    return "look", f"No proven gain over the {challenger}", f"{spread}: the simpler model may do as well."


def _fusion_verdict(gained: Mapping[str, Any]) -> Verdict:
    spread = f"{gained['value']:+.4f} AUC over the trees without it, 95% interval {_range(gained, '+.4f')}"
    if gained["low"] is not None and gained["low"] > 0:
        return "ok", "The sequence adds to the trees", f"{spread}."
    if gained["high"] is not None and gained["high"] < 0:
        return "stop", "The sequence takes from the trees", f"{spread}: the model is better without it."
    return "look", "No proven gain from the sequence", f"{spread}: trees alone may do as well."


def _level_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    model = evaluation["models"][evaluation["champion"]]
    ratio, line = model["metrics"]["observed_to_expected"], model["calibration"]
    spread = f"{ratio['value']:.2f} bads for each one predicted, 95% interval {_range(ratio, '.2f')}"
    slope = ""
    if line is not None:
        low, high = (line["slope"] + z * line["slope_error"] for z in (-1.96, 1.96))
        slope = f" Calibration slope {line['slope']:.2f} ({low:.2f} to {high:.2f}), intercept {line['intercept']:+.2f}."
        if not low <= 1 <= high:
            slope += " PDs are too extreme." if line["slope"] < 1 else " PDs are too timid."
    if ratio["low"] is not None and ratio["low"] <= 1 <= ratio["high"]:
        if "are too" in slope:
            return "look", "Probabilities hold on average, not at the ends", f"{spread}.{slope}"
        return "ok", "Probabilities hold", f"{spread}.{slope}"
    words = "Probabilities run low" if ratio["value"] > 1 else "Probabilities run high"
    return "look", words, f"{spread}.{slope} Recalibrate before the PD prices or limits anything."


def _stability_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    value = evaluation["stability"]["score_psi"]
    moved = [f["name"] for f in evaluation["stability"]["features"] if f["psi"] >= PSI_MOVED]
    also = f" Features that moved: {', '.join(moved[:5])}{' and others' if len(moved) > 5 else ''}." if moved else ""
    if value < PSI_STABLE:
        text = f"PSI of the score from training to test is {value:.3f}.{also}"
        if moved:
            return "look", "Scores look the same, some inputs moved", text
        return "ok", "Applicants look the same", text
    kind, words = ("look", "Applicants shifted somewhat") if value < PSI_MOVED else ("stop", "Applicants shifted")
    return kind, words, f"PSI of the score from training to test is {value:.3f}.{also}"


def _ceiling_verdict(evaluation: Mapping[str, Any]) -> Verdict:
    auc = evaluation["models"][evaluation["champion"]]["metrics"]["auc"]["value"]
    top = evaluation["models"]["ceiling"]["metrics"]["auc"]["value"]
    share = (auc - 0.5) / max(top - 0.5, 1e-9)
    text = (
        f"The true probabilities would reach AUC {top:.3f}; this model has {auc:.3f}, {share:.0%} of the way from 0.5."
    )
    return "ok", "Ceiling known", text


def _range(point: Mapping[str, float | None], form: str) -> str:
    if point["low"] is None or point["high"] is None:
        return "not known"
    return f"{point['low']:{form}} to {point['high']:{form}}"


def _heading(evaluation: Mapping[str, Any], outcome: Mapping[str, Any], bundle_hash: str) -> str:
    rows = evaluation["rows"]
    rate = rows["test_bads"] / rows["test"]
    return (
        f"<h1>How well does this model tell good loans from bad?</h1>"
        f'<p class="lead">Judged on {rows["test"]:,} applications from {_day(evaluation["cutoff_us"])} on, which it '
        f"had never seen; {rows['test_bads']:,} of them ({percent(round(rate, 4))}) turned bad.</p>"
        f'<p class="soft">Bad means: {escape(_outcome_words(outcome))}. Champion: {NAMES[evaluation["champion"]]}. '
        f"Bundle <code>{escape(bundle_hash)}</code></p>"
    )


def _outcome_words(outcome: Mapping[str, Any]) -> str:
    rules = [_rule_words(rule) for rule in outcome.get("bad", [])] or ["as the outcome declares"]
    days = outcome.get("horizon_us", 0) / 86_400_000_000
    return f"{'; else '.join(rules)}{f', within {number(days)} days' if days else ''}"


def _rule_words(rule: Mapping[str, Any]) -> str:
    kind = rule.get("rule")
    if kind == "days_past_due":
        return f"{rule['at_least']} or more days past due"
    if kind == "late_first_payment":
        return f"first payment {rule['at_least']} or more days late"
    if kind == "labelled":
        return f"{rule['field']} is {' or '.join(rule['bad'])}"
    if kind == "happens":
        return str(rule["event"]).replace("_", " ")
    if kind == "any_of":
        return " or ".join(_rule_words(part) for part in rule["rules"])
    return str(kind)


def _verdict_list(found: list[Verdict]) -> str:
    signs = {"ok": "✓", "look": "!", "stop": "✗"}
    items = (
        f'<li class="{kind}"><b>{signs[kind]} {escape(heading)}.</b>{escape(text)}</li>'
        for kind, heading, text in found
    )
    return f'<ul class="verdicts">{"".join(items)}</ul>'


def _figures(evaluation: Mapping[str, Any]) -> str:
    champion = evaluation["models"][evaluation["champion"]]["metrics"]
    other = evaluation["models"][evaluation["challenger"]]["metrics"]
    shown = {
        "auc": ("AUC", ".3f"),
        "gini": ("Gini", ".3f"),
        "ks": ("KS", ".3f"),
        "brier": ("Brier score", ".4f"),
        "observed_to_expected": ("observed ÷ expected bads", ".2f"),
    }
    cards = (
        f'<div class="card"><div class="name">{name}</div><div class="value">{champion[metric]["value"]:{form}}</div>'
        f'<div class="range">{_range(champion[metric], form)}<br>'
        f"{NAMES[evaluation['challenger']]} {other[metric]['value']:{form}}</div></div>"
        for metric, (name, form) in shown.items()
    )
    note = f"Ranges are 95% bootstrap intervals over applicants ({evaluation['resamples']} resamples)."
    return f'<div class="figures">{"".join(cards)}</div><p class="soft" style="margin-top:8px">{note}</p>'


def _provenance(training: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    slices = training.get("slices", {})
    counts = evaluation["rows"]
    rolls = "; ".join(f"{roll['fit']:,} / {roll['later']:,}" for roll in slices.get("rolls", []))
    rows = [
        ("Training rows", f"{counts['train']:,} ({counts['train_bads']:,} bad), outcome known at the cut-off"),
        ("Left out by the purge", f"{counts['purged']:,} matured rows, outcome not yet known at the cut-off"),
        ("Search: fitted / judged on", rolls),
        ("All applications", ", ".join(f"{n:,} {s}" for s, n in counts["by_status"].items())),
        *(_snapshot_row(key, value) for key, value in training.get("snapshot", {}).items()),
        *_sequence_rows(training.get("sequence")),
    ]  # fmt: skip
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    config = ", ".join(f"{k}={v!r}" for k, v in training.get("model", {}).items())
    trials = "".join(
        f'<tr><td class="n">{i + 1}</td><td>{escape(", ".join(f"{k} {v:g}" for k, v in t["parameters"].items()))}</td>'
        f'<td class="n">{t["rounds"]}</td><td class="n">{t["log_loss"]:.5f}</td><td class="n">{t["auc"]:.4f}</td></tr>'
        for i, t in enumerate(training.get("trials", []))
    )
    right = "".join(f'<th class="n">{name}</th>' for name in ("trees", "log loss", "AUC"))
    head = f'<th class="n">place</th><th>candidate</th>{right}'
    return (
        f'<h2>How it was made</h2><div class="card"><table>{cells}</table>'
        f"<details><summary>Configuration and search</summary><p><code>{escape(config)}</code></p>"
        f'<div class="scroll"><table><tr>{head}</tr>{trials}</table></div></details></div>'
    )


def _sequence_rows(sequence: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if sequence is None:
        return []
    heads = _heads_row(sequence["heads"])
    known = np.datetime64(sequence["pretraining"]["cutoff_us"], "us").astype("datetime64[s]")
    encoder = f"{sequence['encoder']}, of what was known at {known}Z"
    further = [
        (f"Head {name} by fold: rows / steps", _heads_row(own["heads"]))
        for name, own in sequence.get("further", {}).items()
    ]
    alone = [("Heads alone by fold: rows / steps", _heads_row(sequence["alone"]))] if "alone" in sequence else []
    return [("Encoder of the sequence", encoder), ("Heads by fold: rows / steps", heads), *alone, *further]


def _heads_row(heads: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{head['rows']:,} / {head['steps']:,}" for head in heads)


def _snapshot_row(key: str, value: object) -> tuple[str, str]:
    if key.endswith("_us") and isinstance(value, int):
        return f"Snapshot: {key.removesuffix('_us')}", f"{np.datetime64(value, 'us').astype('datetime64[s]')}Z"
    if isinstance(value, Mapping):
        each = (f"up to {last:,}" if isinstance(last, int) else str(last) for last in value.values())
        return f"Snapshot: {key}", ", ".join(f"shard {shard} {one}" for shard, one in zip(value, each, strict=True))
    return f"Snapshot: {key}", str(value)


def _day(moment_us: int) -> str:
    return str(np.datetime64(moment_us, "us").astype("datetime64[D]"))
