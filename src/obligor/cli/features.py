"""`obligor features list|describe|lineage`: what a project looks at, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.feature_at import at
from obligor.cli.feature_diff import diff
from obligor.cli.feature_stats import stats
from obligor.cli.known import InPlan, Known, known_features, unit_words
from obligor.cli.options import AsJson, InProject
from obligor.cli.output import EXIT_CODES, Output, guarded, number_words
from obligor.errors import DefinitionError, NotFound, did_you_mean

if TYPE_CHECKING:
    from obligor.decisions.uses import Use
    from obligor.features.catalogue import Entry
    from obligor.features.origins import Branch
    from obligor.features.sequence_words import SequenceEntry
    from obligor.project import Project
    from obligor.sequences.numbers import NumberKind

__all__ = ["features"]

features = typer.Typer(
    help="Explain the features: what each is, where it comes from and goes to, how it is distributed, what it costs.",
    epilog=f"Example: [bold]obligor features list[/]   {EXIT_CODES}",
    no_args_is_help=True,
)
_CLASSES = ("group", "tiled", "decay", "holistic", "sketch")  # the last one that a feature has says how exact it is
_RISK = {"risk rises with it": "↑", "risk falls with it": "↓", "": "↕"}
_RISK_WORDS = {"risk rises with it": "rises with it", "risk falls with it": "falls with it", "": "may move either way"}
_MINOR = "the smallest unit of the currency, such as cents"
_QUANTILES = {"0%": "least", "50%": "median", "100%": "most"}
Name = Annotated[str, typer.Argument(help="A feature's or a sequence's name.")]


def list_(
    plan: InPlan = "working copy",
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """List the features by the reason that they count for: what each is, its unit, cost and missing rate."""
    import obligor
    from obligor.features.origins import CLASSES
    from obligor.features.sequence_words import sequence_entries

    out = Output(as_json)
    known = known_features(obligor.open(project), plan)
    out.paragraph(
        f"{len(known.entries)} features of plan {known.plan.hash[:12]} ({known.name}): what is known about each "
        f"{known.plan.application} when it is made. Titles are the reasons under which they count against an applicant."
    )
    columns = ["feature", "what it is", "unit", "risk", "exactness", "µs", "missing", "note"]
    groups = [(title, [_row(known, entry) for entry in own]) for title, own in _by_reason(known)]
    out.dense(columns, groups, right=("µs", "missing"), wraps="what it is", gives_up=("µs", "exactness", "unit"))
    out.say("")
    out.say("[dim]risk: ↑ rises with the feature, ↓ falls, ↕ may move either way[/]")
    out.paragraph(f"[dim]unit: minor units are {_MINOR}[/]")
    out.paragraph("[dim]exactness: how the number is made of events; exact: it is a value of the application itself[/]")
    for one in sorted({one for entry in known.entries for one in entry.classes}):
        out.paragraph(f"[dim]{one}: {CLASSES[one]}[/]", indent=4)
    out.paragraph(f"[dim]{_measured_how(known)}[/]")
    out.paragraph("[dim]obligor features describe NAME says all there is to know of one[/]")
    sequences = sequence_entries(known.plan)
    for entry in sequences:
        events = f"{entry.whose}'s events: {'; '.join(entry.events)}"
        out.paragraph(f"Sequence [bold]{entry.name}[/]: {events}; {len(entry.fields)} fields of theirs")
    _say_misfits(out, known)
    features = [_document(known, entry) for entry in known.entries]
    out.result(
        {
            "plan": known.plan.hash,
            "name": known.name,
            "features": features,
            "sequences": [asdict(entry) for entry in sequences],
        }
    )


def _by_reason(known: Known) -> Iterator[tuple[str, list[Entry]]]:
    """Yield the features of each reason code with its text, then those without one, then those for the policy alone."""
    groups: dict[tuple[bool, bool, str], list[Entry]] = {}
    for entry in known.entries:
        code = entry.reason if entry.scored else ""
        groups.setdefault((not entry.scored, not code, code), []).append(entry)
    for unscored, bare, code in sorted(groups):
        own = groups[unscored, bare, code]
        if unscored:
            yield "For the policy alone: no model sees these", own
        elif bare:
            yield "Without a reason: no model can be trained on these", own
        else:
            yield f"{code}  {known.uses[own[0].name].reason_text}", own


def _row(known: Known, entry: Entry) -> list[str]:
    measured = known.measured(entry.name)
    cost = measured.get("cost", {}).get("decision_us")
    rate = _missing(measured)
    return [
        entry.name,
        meaning(entry),
        unit_words(entry),
        _RISK[entry.monotone] if entry.scored else "",
        max(entry.classes, key=_CLASSES.index, default="exact"),
        "" if cost is None else f"{cost:.0f}",
        "" if rate is None else f"{rate:.1%}",
        known.notes(entry.name).replace(", ", "\n"),
    ]


def meaning(entry: Entry) -> str:
    """Return what a feature is in a line: its author's words and its window, or how it is computed."""
    first = next((window for window in entry.windows if not window.startswith(("lifetime", "all ", "since"))), "")
    if not entry.description:
        return entry.definition
    if not first or first in entry.description:
        return entry.description
    return f"{entry.description}, {'last ' if re.fullmatch(r'[0-9,]+ [a-z]+', first) else ''}{first}"


def _missing(measured: Any) -> float | None:
    """Return the missing rate over the training set, or over decisions where there is none."""
    for source in ("training", "decisions"):
        found = measured.get(source)
        if found and found["rows"]:
            rate: float = found["missing"] / found["rows"]
            return rate
    return None


def _measured_how(known: Known) -> str:
    if known.stats is None:
        return "µs, missing, expensive: not measured yet for this plan; run obligor features stats"
    return (
        f"µs: microseconds of a decision, were it the only feature; missing: share of {known.stats['questions']} "
        "without a value; unused: no model, rule or limit looks at it; expensive: see obligor features stats"
    )


def _say_misfits(out: Output, known: Known) -> None:
    if known.without_policy:
        out.say("[yellow]there is no policy.toml yet: reasons have no texts here, and no rule looks at a feature.[/]")
    if known.misfits:
        places = "one place" if known.misfits == 1 else f"{known.misfits} places"
        out.say(
            f"[yellow]policy.toml does not fit these features in {places} (obligor train says where): "
            "its rules and reason texts are left out here.[/]"
        )


def _document(known: Known, entry: Entry) -> dict[str, Any]:
    use = known.uses[entry.name]
    return {
        **asdict(entry),
        "reason_text": use.reason_text,
        "used": asdict(use),
        "measured": known.measured(entry.name),
    }


def describe(
    name: Name,
    plan: InPlan = "working copy",
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Describe one feature or sequence: all there is to know of it."""
    import obligor
    from obligor.features.forms import form_hash
    from obligor.features.nulls import none_words, null_words
    from obligor.features.sequence_words import sequence_entries
    from obligor.sequences.numbers import seen_words

    out = Output(as_json)
    opened = obligor.open(project)
    known = known_features(opened, plan)
    sequence = next((one for one in sequence_entries(known.plan) if one.name == name), None)
    if sequence is not None and name not in known.plan.names:
        numbers = _numbers(opened, known, name)
        seen = ("its numbers are seen", seen_words(numbers))
        facts = [*_sequence_facts(sequence), seen, ("scored as", _scored(known, name))]
        out.facts([(word, text) for word, text in facts if text])
        out.result({**asdict(sequence), "numbers": numbers})
        return
    entry = known.entry(name)
    spec = known.plan.features[known.plan.names.index(name)]
    digest = form_hash(known.plan, spec)
    out.facts([(word, text) for word, text in _facts(opened, known, entry, digest) if text])
    _say_misfits(out, known)
    nulls = {
        "missing_where": null_words(known.plan, spec, opened.registry),
        "without_events": none_words(known.plan, spec),
    }
    out.result({**_document(known, entry), **nulls, "form": digest})


def _scored(known: Known, sequence: str) -> str:
    from obligor.decisions.uses import score_words

    return "" if known.bundle is None else score_words(known.bundle, sequence)


def _numbers(project: Project, known: Known, sequence: str) -> dict[str, NumberKind]:
    """Return how the numbers of a sequence are seen by who scores it, else by the encoder that is to be learnt."""
    from obligor.sequences.numbers import kind_of, number_names

    score = None if known.bundle is None else known.bundle.sequence
    if score is not None and score.sequence == sequence:
        return {one.name: one.kind for one in score.tokenizer.fields if one.kind != "category"}
    try:
        model = project.encoder_model
    except DefinitionError:  # there need be none
        return {}
    if model.sequence != sequence:
        return {}
    return {name: kind_of(model.numbers, name) for name in number_names(known.plan.sequence(sequence))}


def _sequence_facts(entry: SequenceEntry) -> Iterator[tuple[str, str]]:
    yield "sequence", entry.name
    yield "whose history", entry.whose
    yield "events", "\n".join(entry.events)
    yield "how many", entry.limit
    yield "of each", entry.built_in
    yield "and", "\n".join(f"{name}: {what} ({origin})" for name, what, origin in entry.fields)


def _facts(project: Project, known: Known, entry: Entry, digest: str) -> Iterator[tuple[str, str]]:
    from obligor.features.nulls import none_words, null_words

    use, measured = known.uses[entry.name], known.measured(entry.name)
    spec = known.plan.features[known.plan.names.index(entry.name)]
    yield "feature", entry.name
    yield "what it is", entry.description
    yield "computed as", entry.definition
    yield "unit", unit_words(entry) + (f" ({_MINOR})" if entry.unit.endswith("minor units") else "")
    yield "values", ", ".join(spec.values or ())
    yield "whose history", ", ".join(entry.entities)
    yield "windows", ", ".join(entry.windows)
    yield "looks at", "\n".join(_inputs(project, entry))
    yield "missing where", "\n".join(null_words(known.plan, spec, project.registry)) or "never"
    yield "without events", none_words(known.plan, spec)
    yield "exactness", "\n".join([entry.exactness, *_kept(entry)])
    yield "risk", _RISK_WORDS[entry.monotone] if entry.scored else "no model sees it"
    yield "reason", ": ".join(filter(None, (entry.reason, use.reason_text))) or "none"
    yield "used by", "\n".join(_used(known, use)) or "nothing"
    for source, word in (("training", "the training set"), ("decisions", "recorded decisions")):
        yield f"over {word}", _distributed(measured.get(source))
    yield "cost", _cost(known, entry.name)
    yield "note", known.notes(entry.name)
    yield "hash", f"{digest[:12]}, the same in every plan that computes it so"


def _inputs(project: Project, entry: Entry) -> Iterator[str]:
    """Yield each event type that a feature looks at, with the fields and with what its author says of it."""
    from obligor.features.origins import event_doc

    for event in dict.fromkeys(one.partition(".")[0] for one in entry.inputs):
        fields = [one.partition(".")[2] for one in entry.inputs if one.startswith(f"{event}.")]
        doc = event_doc(project.registry[event]) if event in project.registry else ""
        yield ": ".join(filter(None, (event, ", ".join(fields)))) + (f" ({doc})" if doc else "")


def _kept(entry: Entry) -> Iterator[str]:
    from obligor.features.origins import CLASSES

    yield from (f"{one}: {CLASSES[one]}" for one in entry.classes)


def _used(known: Known, use: Use) -> Iterator[str]:
    bundle = "" if known.bundle is None else f" of bundle {known.bundle.hash[:12]}"
    if not use.known and known.bundle is not None:
        yield f"no model{bundle} was trained on it as it is defined now"
    if use.splits:
        yield f"boosted trees{bundle}: {use.splits:,} split{'s' if use.splits > 1 else ''}"
    if use.bins:
        yield f"scorecard{bundle}: {use.bins} bins"
    if use.modelled and use.reason:
        yield f"reasons given for a score: {use.reason}{f', {use.reason_text}' if use.reason_text else ''}"
    yield from (f"policy, {one}" for one in use.policy)


def _distributed(found: Any) -> str:
    if not found or not found["rows"]:
        return ""
    missing = f"{found['rows']:,} rows, {found['missing'] / found['rows']:.1%} missing"
    if found["quantiles"]:
        known = (f"{_QUANTILES.get(name, name)} {number_words(value)}" for name, value in found["quantiles"].items())
        return f"{missing}; {', '.join(known)}"
    return f"{missing}; " + ", ".join(f"{name} {share:.1%}" for name, share in (found["shares"] or {}).items())


def _cost(known: Known, name: str) -> str:
    cost = known.measured(name).get("cost")
    if not cost or known.stats is None or cost["row_us"] is None:
        return ""
    whole = known.stats["costs"]["whole"]
    return (
        f"alone {cost['decision_us']:.0f} µs of a decision (all features together {whole['decision_us']:.0f}) and "
        f"{cost['row_us']:.1f} µs of a row offline (all {whole['row_us']:.0f})"
    )


def lineage(
    name: Annotated[str, typer.Argument(help="A feature; or an event type or `type.field`, for what is made of it.")],
    plan: InPlan = "working copy",
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Show what a feature is made of, down to event types and fields in all their versions, and what uses it."""
    import obligor
    from obligor.features.origins import Branch, origins

    out = Output(as_json)
    opened = obligor.open(project)
    known = known_features(opened, plan)
    source = _source(opened, name)
    if name not in known.plan.names and source:
        made = [entry for entry in known.entries if source in entry.inputs]
        number = "1 feature" if len(made) == 1 else f"{len(made)} features"
        tree = Branch(f"{source} enters {number}", tuple(_leaf(known, entry) for entry in made))
    elif name not in known.plan.names:
        sources = [f"{event.event_name}.{field}" for event in opened.registry for field in event.readable]
        near = sources if "." in name else [*known.plan.names, *(event.event_name for event in opened.registry)]
        raise NotFound(f"no feature, event type or field {name!r}; {did_you_mean(name, near)}")
    else:
        entry = known.entry(name)
        spec = known.plan.features[known.plan.names.index(name)]
        made_of = origins(known.plan, opened.registry, spec)
        if len(made_of) > 1 or made_of[0].text != entry.definition:  # else it says the same twice
            made_of = (Branch(f"computed as {entry.definition}"), *made_of)
        tree = Branch(
            f"{name}: {meaning(entry)}", (Branch("is made of", made_of), Branch("is used by", _uses(known, entry)))
        )
    out.tree(tree)
    _say_misfits(out, known)
    out.result(asdict(tree))


def _source(project: Project, name: str) -> str:
    """Return a name where it is an event type's or `type.field` of one, else ""."""
    event, _, field = name.partition(".")
    known = event in project.registry and (not field or field in project.registry[event].readable)
    return name if known else ""


def _leaf(known: Known, entry: Entry) -> Branch:
    from obligor.features.origins import Branch

    return Branch(f"{entry.name}: {meaning(entry)}", _uses(known, entry))


def _uses(known: Known, entry: Entry) -> tuple[Branch, ...]:
    from obligor.features.origins import Branch

    return tuple(Branch(one) for one in _used(known, known.uses[entry.name])) or (Branch("nothing"),)


_COMMANDS: Sequence[tuple[str, Any, str]] = (
    ("list", list_, "obligor features list"),
    ("describe", describe, "obligor features describe owed"),
    ("lineage", lineage, "obligor features lineage owed"),
    ("stats", stats, "obligor features stats"),
    ("diff", diff, "obligor features diff champion"),
    ("at", at, "obligor features at questions.csv --out answers.csv"),
)
for _name, _command, _example in _COMMANDS:
    features.command(_name, epilog=f"Example: [bold]{_example}[/]   {EXIT_CODES}")(guarded(_command))
