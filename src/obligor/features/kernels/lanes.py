"""Lanes: eight int64 of neighbouring rows, compared and added at once.

A compiler makes vector instructions of a loop only where it runs long, and most windows hold few rows. So they are
asked for by name, in the compiler's own language: where registers have 512 bits each is one instruction, elsewhere
several, and the result is the same everywhere, since all of it is integers. A set of lanes, such as those within a
window, is the eight bits of an integer, the lowest for the first lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "LANES",
    "added",
    "at_least",
    "at_most",
    "below",
    "choose",
    "common",
    "count",
    "differ",
    "every",
    "fetch",
    "first_of",
    "greater",
    "greatest",
    "least",
    "lesser",
    "load",
    "load_all",
    "shifted",
    "store",
    "total",
]

LANES = 8

cgutils: Any = _cgutils  # which has no types
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_VECTOR, _BITS = ir.VectorType(_INT64, LANES), ir.VectorType(ir.IntType(1), LANES)
_ALIGNED = ir.Constant(_INT32, 8)  # bytes that a row begins at a multiple of

_Generate: TypeAlias = Callable[[Any, Any, Any, Any], Any]  # (context, builder, signature, arguments) -> value


class _Lanes(types.Type):
    """Eight int64."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    """They are a vector wherever they are."""

    def __init__(self, manager: Any, own: Any) -> None:
        super().__init__(manager, own, _VECTOR)  # type: ignore[no-untyped-call]


_LANES: Any = _Lanes()


def _operation(result: Any, operands: int, generate: _Generate) -> Any:
    """Return a function of so many operands for kernels to call."""
    signatures: dict[int, Callable[..., Any]] = {
        1: lambda typing, a: (result(a), generate),
        2: lambda typing, a, b: (result(a, b), generate),
        3: lambda typing, a, b, c: (result(a, b, c), generate),
    }
    return intrinsic(signatures[operands])


def _integer(context: Any, builder: Any, value: Any, kind: Any, to: Any = types.int64) -> Any:
    return context.cast(builder, value, kind, to)


def _bits(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    return builder.bitcast(_integer(context, builder, value, kind, types.uint8), _BITS)


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Where row `start` of an array lies; a first lane that is left out may lie before the array."""
    data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
    at = builder.gep(data, [_integer(context, builder, arguments[1], signature.args[1])])
    return builder.bitcast(at, _INT64.as_pointer())


def _called(builder: Any, name: str, result: Any, arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _every(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    value = _integer(context, builder, arguments[0], signature.args[0])
    none = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(none, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(one, none, ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES))


def _load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    at = _place(context, builder, signature, arguments)
    wanted = _bits(context, builder, arguments[2], signature.args[2])
    zeros = ir.Constant(_VECTOR, [0] * LANES)
    return _called(builder, "llvm.masked.load.v8i64.p0", _VECTOR, [at, _ALIGNED, wanted, zeros])


def _load_all(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    at = builder.bitcast(_place(context, builder, signature, arguments), _VECTOR.as_pointer())
    return builder.load(at, align=8)


def _fetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    at = _place(context, builder, signature, arguments)
    for_reading, keep, data = (ir.Constant(_INT32, value) for value in (0, 3, 1))
    _called(builder, "llvm.prefetch.p0", ir.VoidType(), [at, for_reading, keep, data])
    return context.get_dummy_value()


def _store(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    at = builder.bitcast(_place(context, builder, signature, arguments), _VECTOR.as_pointer())
    builder.store(arguments[2], at, align=8)
    return context.get_dummy_value()


def _compare(operator: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(builder.icmp_signed(operator, *arguments), ir.IntType(LANES)), _INT64)

    return _operation(types.int64, 2, generate)


def _each(instruction: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)

    return _operation(_LANES, 2, generate)


def _pick(operator: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.icmp_signed(operator, *arguments), *arguments)

    return _operation(_LANES, 2, generate)


def _choose(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.select(_bits(context, builder, arguments[0], signature.args[0]), *arguments[1:])


def _across(name: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _called(builder, f"llvm.vector.reduce.{name}.v8i64", _INT64, arguments)

    return _operation(types.int64, 1, generate)


def _count(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    lanes = _integer(context, builder, arguments[0], signature.args[0], types.uint8)
    return builder.zext(builder.ctpop(lanes), _INT64)


def _first_of(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    lanes = _integer(context, builder, arguments[0], signature.args[0], types.uint8)
    return builder.zext(builder.cttz(lanes, ir.Constant(ir.IntType(1), 0)), _INT64)


every = _operation(_LANES, 1, _every)  # (value): it in each lane
load = _operation(_LANES, 3, _load)  # (array, start, lanes): its rows from `start` on, 0 in other lanes
load_all = _operation(_LANES, 2, _load_all)  # (array, start): all eight; at once after a `store` of the same
fetch = _operation(types.none, 2, _fetch)  # (array, start): begin to bring the row into the cache
store = _operation(types.none, 3, _store)  # (array, start, values): all eight
choose = _operation(_LANES, 3, _choose)  # (lanes, a, b): a in these, b in the others
added, common, shifted = _each("add"), _each("and_"), _each("ashr")  # (a, b), lane by lane
lesser, greater = _pick("<"), _pick(">")  # (a, b), lane by lane
at_least, at_most, below, differ = _compare(">="), _compare("<="), _compare("<"), _compare("!=")  # (a, b): which lanes
total, least, greatest = _across("add"), _across("smin"), _across("smax")  # (values): of all lanes
count = _operation(types.int64, 1, _count)  # (lanes): how many they are
first_of = _operation(types.int64, 1, _first_of)  # (lanes): the number of the first, 8 of none
