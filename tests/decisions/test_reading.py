"""Reading TOML tables: all problems at once, each with its path."""

from __future__ import annotations

import pytest

from obligor.decisions.reading import Reader
from obligor.events.schema import parse_duration


def problems(data: dict[str, object], *asks: tuple[str, tuple[object, ...], dict[str, object]]) -> list[str]:
    reader = Reader(data, "$")
    for method, arguments, keywords in asks:
        getattr(reader, method)(*arguments, **keywords)
    reader.done()
    return [str(problem) for problem in reader.problems]


@pytest.mark.parametrize(
    ("value", "method", "arguments", "keywords", "message"),
    [
        ("4", "integer", (), {"minimum": 1}, "$.key: expected an integer from 1 to 9007199254740991, got '4'"),
        (True, "integer", (), {"minimum": 1}, "$.key: expected an integer from 1 to 9007199254740991, got True"),
        (0, "integer", (), {"minimum": 1, "maximum": 4}, "$.key: expected an integer from 1 to 4, got 0"),
        (1.5, "probability", (), {}, "$.key: expected a probability above 0 and at most 1, got 1.5"),
        (0, "probability", (), {}, "$.key: expected a probability above 0 and at most 1, got 0"),
        (float("nan"), "probability", (), {}, "$.key: expected a probability above 0 and at most 1, got nan"),
        (3, "text", (), {}, "$.key: expected a text, got 3"),
        ({"a": 1}, "texts", (), {}, "$.key.a: expected a text, got 1"),
        (3, "table", (), {}, "$.key: expected a table, got 3"),
        ([3], "tables", (2,), {}, "$.key: expected an array of at most 2 tables ([[key]]), got [3]"),
        ([{}, {}, {}], "tables", (2,), {}, "$.key: expected an array of at most 2 tables ([[key]]), got [{}, {}, {}]"),
        ("x", "choice", (("a", "b"), "a"), {}, "$.key: expected one of a, b, got 'x'"),
        (["x"], "choices", (("a", "b"), ("a",)), {}, "$.key: expected a list of a, b, got ['x']"),
        ("soon", "duration", (parse_duration,), {}, "$.key: expected a length such as '90s', '15m', '36h', '30d' or"),
    ],
)
def test_a_wrong_value_is_named(
    value: object, method: str, arguments: tuple[object, ...], keywords: dict[str, object], message: str
) -> None:
    (problem,) = problems({"key": value}, (method, ("key", *arguments), keywords))
    assert problem.startswith(message)


def test_what_is_required_is_missed() -> None:
    asks: list[tuple[str, tuple[object, ...], dict[str, object]]] = [
        ("text", ("a",), {}),
        ("integer", ("b",), {"minimum": 0}),
        ("probability", ("c",), {}),
    ]
    assert problems({}, *asks) == ["$.a: is required", "$.b: is required", "$.c: is required"]


def test_unknown_keys_are_refused_with_the_nearest() -> None:
    assert problems({"maximun": 1}, ("integer", ("maximum", 4), {"minimum": 1})) == [
        "$.maximun: unknown key; did you mean 'maximum'?"
    ]


def test_defaults_hold_where_nothing_is_said() -> None:
    reader = Reader({}, "$")
    assert (reader.integer("a", 4, minimum=1), reader.probability("b", 0.5)) == (4, 0.5)
    assert (reader.choice("c", ("x", "y"), "y"), reader.choices("d", ("x", "y"), ("x",))) == ("y", ["x"])
    assert reader.integer_or_none("e", minimum=0) is None
    assert reader.problems == []
