"""How kernels are compiled: to the same arithmetic on every CPU, once an installation.

No fastmath: no operation is reordered or fused. Numba's cache notices changes only in the file of the function that was
compiled, not in those that it calls; here every kernel is stamped with the content of all of them, so that an old
machine code never meets a new source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

__all__ = ["entry", "inlined", "kernel", "woven"]

_F = TypeVar("_F", bound=Callable[..., Any])

# `_nrt`: arrays are only borrowed, so that no reference is counted; so a kernel must not allocate.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": False, "error_model": "numpy", "_nrt": False}


@cache
def _stamp(folder: Path) -> str:
    own = Path(__file__).parent
    folders = sorted({own, folder})  # kernels of another room call those of this one
    sources = [*(path for each in folders for path in sorted(each.glob("*.py"))), own.parent / "portable.py"]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _compiled(function: _F, **more: Any) -> _F:
    dispatcher: Any = numba.njit(**_OPTIONS, **more)(function)
    dispatcher._cache._cache_file._source_stamp = _stamp(Path(function.__code__.co_filename).parent)
    return cast(_F, dispatcher)


def entry(function: _F) -> _F:
    """Compile a function on first use that Python calls; it must not allocate."""
    return _compiled(function)


def kernel(function: _F) -> _F:
    """Compile a function that only kernels call: without what a call from Python needs."""
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: _F) -> _F:
    """Compile a function into its callers: what is called for every request and takes many arrays.

    A call copies each word of its arguments: of a layout, a room and tiles these are some four hundred.
    """
    return _compiled(function, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def woven(function: _F) -> _F:
    """Put a function's source into its callers.

    What makes views of arrays, which no compiled function may return; and what is so much that compiling it apart, only
    to be compiled into its callers again, takes long.
    """
    return _compiled(function, inline="always", no_cpython_wrapper=True, no_cfunc_wrapper=True)
