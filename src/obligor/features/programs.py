"""The last step of every feature: its program, run on measures and request values.

Postfix over float64 with NaN for null, as `plan.py` defines it. Only + - * / and comparisons, in the program's order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels import kernel

__all__ = ["finish_rows"]

# The order of `plan.Op`, whose places the layout holds.
MEASURE, REQUEST, CONSTANT, ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM = range(9)
LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, EQUAL, NOT_EQUAL, FILL = range(9, 16)
STACK_MAX = 32  # operands that a program may hold at once


@kernel
def _step(operation: Any, a: Any, b: Any) -> Any:
    """One step on two operands that are not null."""
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
def _program(
    steps: Any, start: Any, end: Any, constants: Any, row: Any, measures: Any, requests: Any, stack: Any
) -> Any:
    """Run the steps of one feature; NaN is null, infinity is an error."""
    top = 0
    for s in range(start, end):
        operation, operand = steps[s, 0], steps[s, 1]
        if operation == MEASURE:
            stack[top] = measures[row, operand]
            top += 1
        elif operation == REQUEST:
            stack[top] = requests[row, operand]
            top += 1
        elif operation == CONSTANT:
            stack[top] = constants[operand]
            top += 1
        elif operation == FILL:
            if np.isnan(stack[top - 1]):
                stack[top - 1] = constants[operand]
        else:
            top -= 1
            a, b = stack[top - 1], stack[top]
            stack[top - 1] = np.nan if np.isnan(a) or np.isnan(b) else _step(operation, a, b)
            if np.isinf(stack[top - 1]):
                return np.inf
    return stack[0]


@kernel
def finish_rows(layout: Any, measures: Any, requests: Any, errors: Any, out: Any) -> None:
    """Run all programs of all rows; a row with an error is null throughout.

    A step whose result is not finite makes the error -1 - the feature's place.
    """
    programs, steps, constants = layout.programs, layout.steps, layout.constants
    stack = np.empty(STACK_MAX, np.float64)
    for i in range(out.shape[0]):
        for feature in range(out.shape[1]):
            if errors[i] != 0:
                break
            value = _program(steps, programs[feature], programs[feature + 1], constants, i, measures, requests, stack)
            if np.isinf(value):
                errors[i] = -1 - feature
            # One bit pattern for null, and +0 for -0.
            out[i, feature] = np.nan if np.isnan(value) else value + 0.0
        if errors[i] != 0:
            out[i, :] = np.nan
