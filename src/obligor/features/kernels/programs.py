"""Programs: the last step of features that are more than a measure, and of measures over keys.

Postfix over float64 with NaN for null, as `plan.py` defines it. Only + - * / and comparisons, in the program's order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import entry, kernel
from obligor.features.kernels.integers import INTEGER_MAX

__all__ = ["WHOLE", "finish_programs", "finish_rows", "run_program"]

# The order of `measures.Op`, whose places the layout holds.
MEASURE, REQUEST, CONSTANT, ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM = range(9)
LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, EQUAL, NOT_EQUAL, FILL = range(9, 16)
WHOLE = 1  # the operand of a step that must make an exact integer


@kernel
def _step(operation: Any, a: Any, b: Any) -> Any:
    """One step on two operands; null if either is."""
    if np.isnan(a) or np.isnan(b):
        return np.nan
    if operation == ADD:
        return a + b
    if operation == SUBTRACT:
        return a - b
    if operation == MULTIPLY:
        return a * b
    if operation == DIVIDE:
        return a / b if b != 0.0 else np.nan
    if operation == MINIMUM:
        return a if a < b else b
    if operation == MAXIMUM:
        return a if a > b else b
    true = (
        (operation == LESS and a < b)
        or (operation == LESS_EQUAL and a <= b)
        or (operation == GREATER and a > b)
        or (operation == GREATER_EQUAL and a >= b)
        or (operation == EQUAL and a == b)
        or (operation == NOT_EQUAL and a != b)
    )
    return 1.0 if true else 0.0


@kernel
def run_program(steps: Any, start: Any, end: Any, constants: Any, measures: Any, requests: Any, stack: Any) -> Any:
    """The result of one program on the measures and request values of one row, and whether every step was exact.

    A step is not whose result is infinite, or reaches 2**53 where a whole number or a comparison rests on it: it may be
    rounded. One bit pattern for null, and +0 for -0.
    """
    top, exact = 0, True
    for s in range(start, end):
        operation, operand = steps[s, 0], steps[s, 1]
        if operation == MEASURE:
            stack[top] = measures[operand]
            top += 1
        elif operation == REQUEST:
            stack[top] = requests[operand]
            exact &= not np.isinf(stack[top])
            top += 1
        elif operation == CONSTANT:
            stack[top] = constants[operand]
            top += 1
        elif operation == FILL:
            if np.isnan(stack[top - 1]):
                stack[top - 1] = constants[operand]
        else:
            top -= 1
            stack[top - 1] = _step(operation, stack[top - 1], stack[top])
            exact &= not np.abs(stack[top - 1]) >= (INTEGER_MAX if operand == WHOLE else np.inf)
    return (np.nan if np.isnan(stack[0]) else stack[0] + 0.0), exact


@kernel
def finish_programs(layout: Any, measures: Any, requests: Any, error: Any, stack: Any, out: Any) -> Any:
    """Run all programs of a row on `stack`; one with an error is null throughout. Returns the error.

    An infinite request value or a step that is not exact makes it -1 - the feature's place.
    """
    programs, steps, constants = layout.programs, layout.steps, layout.constants
    for p in range(programs.shape[0]):
        feature = programs[p, 0]
        value, exact = run_program(steps, programs[p, 1], programs[p, 2], constants, measures, requests, stack)
        if not exact and error == 0:
            error = -1 - feature
        out[feature] = value
    if error != 0:
        for feature in range(out.shape[0]):
            out[feature] = np.nan
    return error


@entry
def finish_rows(layout: Any, measures: Any, requests: Any, errors: Any, stack: Any, places: Any, out: Any) -> None:
    """`finish_programs` of many rows; `places` are those of `out` that they belong to."""
    if layout.programs.shape[0] == 0:
        for i in range(errors.shape[0]):
            if errors[i] != 0:
                out[places[i]] = np.nan
        return
    for i in range(errors.shape[0]):
        errors[i] = finish_programs(layout, measures[i], requests[i], errors[i], stack, out[places[i]])
