"""Sources: which facts of an event type a measure reads, and the checks that their fields and filters pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.fields import Category, Entity, Field, Money
from obligor.events.predicates import And, Comparison, Predicate
from obligor.features.conditions import check_relation, split
from obligor.features.delays import Delay, stored
from obligor.features.expressions import Source
from obligor.features.filters import comparisons, flattened
from obligor.features.kinds import kind_of_field, one, only_currency, withheld

__all__ = ["fitting_field", "narrowed", "own_field"]


def own_field(source: Source, name: str | Field) -> Field:
    """Return a field of the source's event type, by its name or itself; DefinitionError for another's."""
    if isinstance(name, str):
        return source.event.field(name)
    own = source.event.fields.get(stored(name.name))
    if own is not (name.of if isinstance(name, Delay) else name):
        raise DefinitionError(f"{name.event_name}.{name.name} is no field of {source.event.__name__}")
    return name


def fitting_field(source: Source, asker: str, name: str | Field, kinds: Sequence[str]) -> Field:
    """Return a field of one of some kinds; DefinitionError that lists those there are otherwise."""
    field = own_field(source, name)
    if field.kind not in kinds:
        fitting = [n for n, f in source.event.fields.items() if f.kind in kinds and not f.withheld]
        raise DefinitionError(
            f"{asker}({field.name!r}): {source.event.__name__}.{field.name} is {one(field.kind)}, expected one of "
            f"{', '.join(kinds)}; such fields here: {', '.join(fitting) or 'none'}"
        )
    return field


def narrowed(source: Source, predicates: Sequence[Predicate]) -> Source:
    """Return the source with more predicates, what the question decides apart from what the facts do."""
    for predicate in predicates:
        if not isinstance(predicate, Predicate):
            raise DefinitionError(f"where: expected a comparison such as {_example(source)}, got {predicate!r}")
    if not predicates:
        return source
    where, given = split(And(tuple(predicates)))
    parts = tuple(part for part in (source.where, where) if part is not None)
    joined = None if not parts else flattened(parts[0] if len(parts) == 1 else And(parts))
    result = replace(source, where=joined, given=(*source.given, *given))
    _check_filter(result)
    for relation in result.given:
        check_relation(result, relation)
    return result


def _example(source: Source) -> str:
    field = next((f for f in source.event.fields.values() if not isinstance(f, Entity)), source.by[0])
    return f"{source.event.__name__}.{field.name} == ..."


def _check_filter(source: Source) -> None:
    for comparison in comparisons(source.where) if source.where is not None else ():
        name = stored(comparison.field).removesuffix(".currency")
        field = source.event.field(name)
        withheld(field, f"where: {source.event.__name__}.{name}")
        if isinstance(field, Money) and comparison.field == name and comparison.op not in ("is_null", "not_null"):
            kind_of_field(field, None, only_currency(name, source.where))
        if isinstance(field, Category) and field.values and comparison.field == name:
            _check_values(source, field, comparison)


def _check_values(source: Source, field: Category, comparison: Comparison) -> None:
    # A comparison of another event's field of the same name could carry a value that this field never has.
    wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    for text in wanted:
        if isinstance(text, str) and text not in field.values:
            raise DefinitionError(
                f"where: {source.event.__name__}.{field.name} is never {text!r}; {did_you_mean(text, field.values)}"
            )
