"""What commands print: tables and progress for people, one JSON document for machines (`--json`), errors with codes.

Exit codes: 0 done; 1 done, and the answer is no (a replay differs, a gate is not passed); 2 wrong usage; 3 bad input or
definition; 4 not found or in conflict with what is there; 5 a hash or chain does not fit.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from obligor.errors import Conflict, IntegrityError, NotFound, ObligorError, StoreLost

__all__ = ["EXIT_CODES", "WRAPPED_MIN", "Output", "counted_bar", "guarded", "number_words", "progress_bar"]

P = ParamSpec("P")
R = TypeVar("R")

EXIT_CODES = (
    "Exit codes: 0 done, 1 done and the answer is no, 2 usage, 3 bad input, 4 not found or conflict, 5 integrity."
)
WRAPPED_MIN = 40  # characters; a narrower column of sentences is hard to read
_GAP = 2  # characters between columns
_console = Console(stderr=False, highlight=False)
_errors = Console(stderr=True, highlight=False)


class Output:
    """Prints for people, or collects one JSON document when `as_json` is set."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, text: str) -> None:
        """Print one line for people."""
        if not self.as_json:
            _console.print(text, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table for people; numbers are set to the right."""
        if self.as_json:
            return
        table = Table(title=title or None, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
        for i, column in enumerate(columns):
            numeric = bool(rows) and all(isinstance(row[i], int | float) or row[i] in (None, "") for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        _console.print(table)

    def dense(
        self,
        columns: Sequence[str],
        groups: Sequence[tuple[str, Sequence[Sequence[str]]]],
        *,
        right: Collection[str] = (),
        wraps: str = "",
        gives_up: Sequence[str] = (),
    ) -> None:
        """Print a table for people without lines, in parts under bold titles, that fits the terminal.

        The column `wraps` takes the width that the others leave and is broken between words; where they leave less
        than `WRAPPED_MIN` it stands under each row. Columns of `gives_up` are left out, the first ones first, where
        even so there is no room.
        """
        if self.as_json:
            return
        rows = [row for _, part in groups for row in part]
        texts = {one: "\n".join([one, *(row[i] for row in rows)]) for i, one in enumerate(columns)}
        widths = {one: max(map(len, text.split("\n"))) for one, text in texts.items()}
        longest = widths.pop(wraps, 0)
        left_out = _left_out(widths, gives_up)
        rest = _console.width - _across(widths)
        beside = bool(wraps) and rest >= min(WRAPPED_MIN, longest)
        if beside:
            widths[wraps] = min(longest, rest)
        shown = [i for i, one in enumerate(columns) if one in widths]
        kept = [(columns[i], widths[columns[i]], columns[i] in right) for i in shown]
        _console.print(_grid(kept, [], header=True))
        for title, part in groups:
            if title:
                _console.print()
                self.paragraph(f"[bold]{escape(title)}[/]")
            cells = [[row[i] for i in shown] for row in part]
            if beside or not wraps:
                _console.print(_grid(kept, cells))
                continue
            for row, own in zip(part, cells, strict=True):
                _console.print(_grid(kept, [own]))
                self.paragraph(escape(row[columns.index(wraps)]), indent=4)
        if left_out:
            self.paragraph(f"[dim](a wider terminal shows: {', '.join(left_out)})[/]")

    def paragraph(self, text: str, *, indent: int = 0) -> None:
        """Print a text for people, broken between words."""
        if self.as_json:
            return
        for line in Text.from_markup(text).wrap(_console, _console.width - indent):
            line.rstrip()
            _console.print(Text(" " * indent).append_text(line), soft_wrap=True)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Print what is known of one thing, a line each."""
        if self.as_json:
            return
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for word, text in facts:
            table.add_row(word, escape(text))
        _console.print(table)

    def tree(self, root: Branching) -> None:
        """Print a tree of texts."""
        if not self.as_json:
            _console.print(_tree(root, Tree(f"[bold]{escape(root.text)}[/]")))

    def result(self, document: Any) -> None:
        """Print the JSON document, when machines asked for it."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")


def number_words(value: float) -> str:
    """Return a number with four digits or, where it is large, all those before the point.

    >>> number_words(0.00189474), number_words(477.45), number_words(1_318_580.4), number_words(-3.0)
    ('0.001895', '477.4', '1,318,580', '-3')
    """
    return f"{value:,.0f}" if abs(value) >= 1_000 or value.is_integer() else f"{value:.4g}"


def _across(widths: Mapping[str, int]) -> int:
    """Return how wide columns are together, each with the gap behind it."""
    return sum(width + _GAP for width in widths.values())


def _left_out(widths: dict[str, int], gives_up: Sequence[str]) -> list[str]:
    """Take columns out of `widths` until the others fit the terminal, and return them."""
    left_out = []
    for column in gives_up:
        if _across(widths) - _GAP <= _console.width:
            break
        del widths[column]
        left_out.append(column)
    return left_out


def _grid(columns: Sequence[tuple[str, int, bool]], rows: Sequence[Sequence[str]], *, header: bool = False) -> Table:
    """Return rows under one another, of columns with a name and a width, to the right or not."""
    table = Table(box=None, show_header=header, header_style="dim", padding=(0, _GAP, 0, 0), pad_edge=False)
    for name, width, right in columns:
        table.add_column(name, width=width, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


class Branching(Protocol):
    """A text and what hangs under it."""

    @property
    def text(self) -> str:
        """What is printed."""

    @property
    def branches(self) -> Sequence[Branching]:
        """What is printed under it."""


def _tree(root: Branching, tree: Tree) -> Tree:
    for branch in root.branches:
        _tree(branch, tree.add(escape(branch.text)))
    return tree


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return number_words(value) if isinstance(value, float) else str(value)


def _fail(error: ObligorError) -> NoReturn:
    for problem in error.problems:
        place = "" if problem.path == "$" else f"[bold]{problem.path}[/]: "
        _errors.print(f"[red]error[/]: {place}", end="")
        _errors.print(problem.message, markup=False, soft_wrap=True)
    code = 4 if isinstance(error, NotFound | Conflict) else 5 if isinstance(error, IntegrityError) else 3
    raise typer.Exit(code)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn Obligor's errors into lines on stderr and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ObligorError as error:
            _fail(error)
        except StoreLost as error:
            _fail(ObligorError(error.strerror or str(error)))

    return run


@contextmanager
def progress_bar(
    description: str, *, total: int | None = None, hidden: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Show a bar on stderr; the yielded `step(advance, text)` moves it. `total` is in steps; None while unknown."""
    with _bar(hidden) as bar:
        task = bar.add_task(description, total=total, note="")

        def step(advance: int, text: str = "") -> None:
            bar.update(task, advance=advance, note=text)

        yield step


@contextmanager
def counted_bar(description: str, *, hidden: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr, with the time left; the yielded `show(done, total)` says how much is done."""
    with _bar(hidden) as bar:
        task = bar.add_task(description, total=None, note="")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def _bar(hidden: bool) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=_errors, transient=True, disable=hidden or not _errors.is_terminal)
