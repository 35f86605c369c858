"""Reading ahead: the next item is made on another thread while the caller works on the one before."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
_END: Final = object()


def ahead(source: Iterator[T]) -> Generator[T, None, None]:
    """Yield what `source` yields, which is one item ahead; what it raises is raised in its place.

    An iterator that is closed early waits for the item under way.
    """
    with ThreadPoolExecutor(1, "obligor-ahead") as pool:
        waiting = pool.submit(next, source, _END)
        while (item := waiting.result()) is not _END:
            waiting = pool.submit(next, source, _END)
            yield item  # type: ignore[misc]
