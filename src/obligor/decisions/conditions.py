"""Conditions of a policy: a small expression language, parsed to plain data and evaluated with SQL's three values.

    defaults_90d > 0 and application.amount > 500_000
    application.channel in ["app", "web"] or is_null(income_90d)

A bare name is a feature of the plan; `application.<field>` is the application's own field, money in minor units.
Amounts of two currencies are neither compared nor added: nothing is converted.
The grammar is a subset of Python's, read with `ast` and never evaluated as code: and, or, not, comparisons, `in`,
+ - * /, and the functions `is_null`, `fill`, `minimum`, `maximum`. Null propagates; `and` and `or` are Kleene's, so a
condition is true, false or null, and what null means is for the rule to say. Division by zero gives null.

Whole numbers are integers of any size and compare exactly with all others; what is divided, or has decimal places, is
float64.
"""

from __future__ import annotations

import ast
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from obligor.errors import DefinitionError, did_you_mean
from obligor.features.kinds import currencies_in

__all__ = ["Condition", "Names", "Node", "parse_condition"]

LENGTH_MAX = 1000
DEPTH_MAX = 50
Kind = Literal["number", "text", "boolean"]
Node = list[Any]  # ["<", ["feature", 3], ["constant", 18.0]]: JSON data
Value = int | float | str | bool | None

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_FUNCTIONS = {"is_null": 1, "fill": 2, "minimum": 2, "maximum": 2}
_OF_TWO = frozenset({*_ARITHMETIC.values(), "fill", "minimum", "maximum"})
OTHER = "(other)"  # how a category outside the plan's vocabulary reads


@dataclass(frozen=True, slots=True)
class Names:
    """What a condition may mention: the plan's features in order, the application's fields; both as JSON data."""

    features: Sequence[Mapping[str, Any]]
    fields: Mapping[str, Mapping[str, Any]]

    def feature(self, name: str) -> tuple[int, Mapping[str, Any]]:
        """Return index and description of a feature; DefinitionError with the nearest name otherwise."""
        names = [feature["name"] for feature in self.features]
        if name not in names:
            hint = f"write application.{name} for the application's field" if name in self.fields else ""
            raise DefinitionError(f"unknown feature {name!r}; {hint or did_you_mean(name, names)}")
        return names.index(name), self.features[names.index(name)]

    def field(self, name: str) -> Mapping[str, Any]:
        """Return the description of an application's field that a policy may read."""
        if name not in self.fields:
            raise DefinitionError(f"the application has no field {name!r}; {did_you_mean(name, list(self.fields))}")
        field = self.fields[name]
        if field.get("personal") or field.get("protected"):
            raise DefinitionError(f"application.{name} is personal or protected: a policy may not read it")
        return field


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition; `reads` are the application's fields it mentions, `features` the indices of features."""

    text: str
    node: Node
    reads: frozenset[str]
    features: frozenset[int]

    def evaluate(self, features: Sequence[float], fields: Mapping[str, object]) -> bool | None:
        """Return true, false or null for one application.

        `features` in the plan's order, NaN is null; `fields` in stored form (minor units, scaled decimals).
        """
        value = _evaluate(self.node, features, fields)
        assert value is None or isinstance(value, bool)
        return value


def parse_condition(text: str, names: Names) -> Condition:
    """Return the condition in `text`; DefinitionError names what is unknown or cannot be compared.

    >>> names = Names([{"name": "late_90d", "type": "integer"}], {"amount": {"kind": "money"}})
    >>> parse_condition("late_90d > 0 and application.amount > 1000", names).evaluate([2.0], {"amount": 1001})
    True
    """
    if not isinstance(text, str) or not 0 < len(text) <= LENGTH_MAX or "\\" in text:
        raise DefinitionError(f"expected a condition of 1 to {LENGTH_MAX} characters, got {text!r:.80}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, SyntaxWarning, DeprecationWarning, RecursionError, MemoryError, ValueError) as error:
        raise DefinitionError(f"cannot read the condition {text!r}: {error}") from None
    parser = _Parser(names)
    node = parser.boolean(tree, 0)
    return Condition(text, node, frozenset(parser.reads), frozenset(parser.used))


class _Parser:
    """Turns Python's syntax tree into data, checking names and kinds on the way."""

    def __init__(self, names: Names) -> None:
        self.names, self.reads, self.used = names, set[str](), set[int]()

    def boolean(self, tree: ast.expr, depth: int) -> Node:
        return self._of_kind(tree, "boolean", depth)

    def number(self, tree: ast.expr, depth: int) -> Node:
        return self._of_kind(tree, "number", depth)

    def _of_kind(self, tree: ast.expr, expected: Kind, depth: int) -> Node:
        kind, node = self.parse(tree, depth)
        if kind != expected:
            raise DefinitionError(f"expected a {expected}, got the {kind} {ast.unparse(tree)!r}")
        return node

    def parse(self, tree: ast.expr, depth: int) -> tuple[Kind, Node]:
        if depth > DEPTH_MAX:
            raise DefinitionError(f"the condition is nested deeper than {DEPTH_MAX}")
        match tree:
            case ast.BoolOp():
                op = "and" if isinstance(tree.op, ast.And) else "or"
                return "boolean", [op, *(self.boolean(part, depth + 1) for part in tree.values)]
            case ast.UnaryOp(op=ast.Not()):
                return "boolean", ["not", self.boolean(tree.operand, depth + 1)]
            case ast.UnaryOp(op=ast.USub()):
                return "number", ["-", ["constant", 0.0], self.number(tree.operand, depth + 1)]
            case ast.Compare():
                return "boolean", self._compare(tree, depth)
            case ast.BinOp() if type(tree.op) in _ARITHMETIC:
                left, right = self.number(tree.left, depth + 1), self.number(tree.right, depth + 1)
                self._check_currencies(tree.left, left, tree.right, right)
                return "number", [_ARITHMETIC[type(tree.op)], left, right]
            case ast.Call(func=ast.Name()):
                return self._call(tree, depth)
            case ast.Attribute(value=ast.Name(id="application")):
                return self._field(tree.attr)
            case ast.Name():
                return self._name(tree.id)
            case ast.Constant():
                return _constant(tree.value)
        raise DefinitionError(f"{ast.unparse(tree)!r:.80} is not part of the condition language")

    def _compare(self, tree: ast.Compare, depth: int) -> Node:
        parts: list[Node] = []
        left = tree.left
        for op, right in zip(tree.ops, tree.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                part = self._member(left, right, depth)
                parts.append(part if isinstance(op, ast.In) else ["not", part])
            elif type(op) in _COMPARISONS:
                parts.append(self._pair(_COMPARISONS[type(op)], left, right, depth))
            else:
                raise DefinitionError("use == and !=, or is_null(x), instead of `is`")
            left = right
        return parts[0] if len(parts) == 1 else ["and", *parts]

    def _pair(self, op: str, left: ast.expr, right: ast.expr, depth: int) -> Node:
        (one, a), (other, b) = self.parse(left, depth + 1), self.parse(right, depth + 1)
        if one != other:
            raise DefinitionError(
                f"cannot compare the {one} {ast.unparse(left)!r} with the {other} {ast.unparse(right)!r}"
            )
        if one != "number" and op not in ("==", "!="):
            raise DefinitionError(f"a {one} has no order: {ast.unparse(left)!r} {op} {ast.unparse(right)!r}")
        self._check_value(a, b)
        self._check_value(b, a)
        self._check_currencies(left, a, right, b)
        return [op, a, b]

    def _member(self, left: ast.expr, right: ast.expr, depth: int) -> Node:
        kind, node = self.parse(left, depth + 1)
        if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
            raise DefinitionError(f"expected a list of constants after `in`, got {ast.unparse(right)!r}")
        values = []
        for element in right.elts:
            one, constant = self.parse(element, depth + 1)
            if one != kind or constant[0] != "constant":
                raise DefinitionError(f"expected {kind} constants after `in`, got {ast.unparse(element)!r}")
            self._check_value(node, constant)
            values.append(constant[1])
        return ["in", node, values]

    def _check_value(self, node: Node, constant: Node) -> None:
        """Refuse a comparison with a category's value that cannot occur."""
        values = node[2] if node[0] in ("category", "choice") else ()
        if values and constant[0] == "constant" and constant[1] not in (*values, OTHER):
            raise DefinitionError(f"{constant[1]!r} never occurs; {did_you_mean(constant[1], list(values))}")

    def _check_currencies(self, left: ast.expr, a: Node, right: ast.expr, b: Node) -> None:
        """Refuse amounts of two currencies, as features do: nothing is converted."""
        one, other = self._currency(a), self._currency(b)
        if one and other and one != other:
            raise DefinitionError(
                "expected amounts in one currency, "
                f"got {ast.unparse(left)!r} in {one} and {ast.unparse(right)!r} in {other}"
            )

    def _currency(self, node: Node) -> str:
        """Return the currency that a number is in, "" for none; a constant takes that of the other side."""
        op = node[0]
        if op == "feature":
            return min(currencies_in(self.names.features[node[1]].get("unit") or ""), default="")
        if op == "field":
            return str(min(self.names.fields[node[1]].get("currencies", ()), default=""))
        if op not in _OF_TWO:
            return ""
        one, other = self._currency(node[1]), self._currency(node[2])
        return "" if op == "/" and one == other else one or other

    def _call(self, tree: ast.Call, depth: int) -> tuple[Kind, Node]:
        assert isinstance(tree.func, ast.Name)
        name = tree.func.id
        if name not in _FUNCTIONS:
            raise DefinitionError(f"unknown function {name!r}; {did_you_mean(name, list(_FUNCTIONS))}")
        if tree.keywords or len(tree.args) != _FUNCTIONS[name]:
            raise DefinitionError(f"{name} takes {_FUNCTIONS[name]} argument(s): {ast.unparse(tree)!r}")
        if name == "is_null":
            return "boolean", ["is_null", self._any(tree.args[0], depth)]
        a, b = (self.number(argument, depth + 1) for argument in tree.args)
        self._check_currencies(tree.args[0], a, tree.args[1], b)
        return "number", [name, a, b]

    def _any(self, tree: ast.expr, depth: int) -> Node:
        """A bare field of any kind (a timestamp too), or any expression."""
        if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name) and tree.value.id == "application":
            self.names.field(tree.attr)
            self.reads.add(tree.attr)
            return ["field", tree.attr]
        return self.parse(tree, depth + 1)[1]

    def _field(self, name: str) -> tuple[Kind, Node]:
        field = self.names.field(name)
        self.reads.add(name)
        kind = field["kind"]
        if len(currencies := field.get("currencies", ())) > 1:
            raise DefinitionError(
                f"application.{name} mixes currencies ({', '.join(currencies)}): only is_null(...) may read it"
            )
        if kind in ("money", "integer"):
            return "number", ["field", name]
        if kind == "decimal":
            return "number", ["decimal", name, 10.0 ** field["scale"]]
        if kind == "boolean":
            return "boolean", ["field", name]
        if kind == "timestamp":
            raise DefinitionError(f"application.{name} is a timestamp: only is_null(...) may read it; use a feature")
        return "text", ["choice", name, list(field["values"])] if field.get("values") else ["field", name]

    def _name(self, name: str) -> tuple[Kind, Node]:
        if name in ("true", "false"):
            return "boolean", ["constant", name == "true"]
        index, feature = self.names.feature(name)
        self.used.add(index)
        if feature.get("type") == "boolean":
            return "boolean", ["flag", index]
        if feature.get("type") == "category":
            return "text", ["category", index, list(feature["values"])]
        return "number", ["feature", index]


def _constant(value: object) -> tuple[Kind, Node]:
    if isinstance(value, bool):
        return "boolean", ["constant", value]
    if isinstance(value, int | float):
        number = float(value) if abs(value) < 2**53 else math.inf
        if not math.isfinite(number):
            raise DefinitionError(f"expected a number below 2**53, got {value!r:.80}")
        return "number", ["constant", number]
    if isinstance(value, str):
        return "text", ["constant", value]
    raise DefinitionError(f"expected a number, a text, true or false, got {value!r:.80}")


def _evaluate(node: Node, features: Sequence[float], fields: Mapping[str, object]) -> Value:
    op = node[0]
    if op in _LEAVES:
        return _leaf(node, features, fields)
    if op in ("and", "or"):
        return _kleene(op == "or", [_evaluate(part, features, fields) for part in node[1:]])
    first = _evaluate(node[1], features, fields)
    if op == "is_null":
        return first is None
    if op == "fill" and first is None:
        return _evaluate(node[2], features, fields)
    if first is None:
        return None
    if op == "not":
        return not first
    if op == "in":
        return first in node[2]
    if op == "fill":
        return first
    second = _evaluate(node[2], features, fields)
    return None if second is None else _binary(op, first, second)


_LEAVES = frozenset({"constant", "feature", "flag", "category", "field", "choice", "decimal"})


def _leaf(node: Node, features: Sequence[float], fields: Mapping[str, object]) -> Value:
    op = node[0]
    if op == "constant":
        constant: Value = node[1]
        return _number(constant) if isinstance(constant, float) else constant
    if op in ("feature", "flag", "category"):
        number = float(features[node[1]])
        if math.isnan(number):
            return None
        if op == "flag":
            return number != 0.0
        if op == "category":
            return str(node[2][int(number)]) if number < len(node[2]) else OTHER
        return _number(number)
    value = fields.get(node[1])
    if value is None or isinstance(value, str | bool):
        return value
    assert isinstance(value, int)
    return float(value) / node[2] if op == "decimal" else value


def _number(x: float) -> int | float:
    """Return a whole number as an integer, whose sums and products are exact; another as it is."""
    return int(x) if x.is_integer() else x


def _kleene(absorbing: bool, values: list[Value]) -> bool | None:
    """Return or (absorbing true) or and (absorbing false) of true, false and null."""
    if any(value is absorbing for value in values):
        return absorbing
    return None if any(value is None for value in values) else not absorbing


def _binary(op: str, a: Any, b: Any) -> Value:
    match op:
        case "<":
            return bool(a < b)
        case "<=":
            return bool(a <= b)
        case ">":
            return bool(a > b)
        case ">=":
            return bool(a >= b)
        case "==":
            return bool(a == b)
        case "!=":
            return bool(a != b)
        case "+":
            return _finite(a + b)
        case "-":
            return _finite(a - b)
        case "*":
            return _finite(a * b)
        case "/":
            return None if b == 0 else _finite(a / b)
        case "minimum":
            return _finite(min(a, b))
        case "maximum":
            return _finite(max(a, b))
    raise AssertionError(f"unknown operation {op!r}")


def _finite(number: int | float) -> int | float | None:
    """Overflow is null, so that the rule's own answer to null applies and nothing compares with an infinity."""
    return number if abs(number) <= sys.float_info.max else None
