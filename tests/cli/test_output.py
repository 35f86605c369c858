"""What commands print."""

from __future__ import annotations

import doctest
import json

import pytest
import typer

from obligor.cli import output
from obligor.cli.output import WRAPPED_MIN, Output, guarded, progress_bar
from obligor.errors import BadInput, Conflict, IntegrityError, NotFound, ObligorError, Problem


@pytest.mark.parametrize(
    ("error", "code"), [(BadInput, 3), (NotFound, 4), (Conflict, 4), (IntegrityError, 5), (ObligorError, 3)]
)
def test_errors_become_lines_and_exit_codes(
    error: type[ObligorError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @guarded
    def command() -> None:
        raise error([Problem("$.amount", "expected more"), Problem("$", "and [this]")])

    with pytest.raises(typer.Exit) as exit_:
        command()
    assert exit_.value.exit_code == code
    assert capsys.readouterr().err == "error: $.amount: expected more\nerror: and [this]\n"


def test_json_and_text_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        out = Output(as_json)
        out.say("text")
        out.table("title", ["a", "b"], [["x", 1_000], ["y", None]])
        out.result({"a": 1})
    first, _, rest = capsys.readouterr().out.partition("\n}\n")
    assert json.loads(first + "\n}") == {"a": 1}
    assert rest.startswith("text\n")
    assert "1,000" in rest


def test_a_hidden_bar_still_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("rows", total=2, hidden=True) as step:
        step(1, "")
        step(1, "done")
    assert capsys.readouterr().err == ""


def test_numbers_are_said_in_full_where_they_are_large() -> None:
    assert doctest.testmod(output) == (0, 1)


SENTENCE = "one two three four five six seven eight nine ten eleven twelve"
COLUMNS = ["name", "words", "number", "picture"]
ROWS = [["first_of_all", SENTENCE, "1,000", "▁▂▃"], ["second", "short", "2\n[x]", "█"]]


@pytest.mark.parametrize("width", [24, 30, 40, 60, 80, 140])
def test_a_dense_table_fits_and_loses_no_word(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obligor.cli.output._console.width", width)
    Output(False).dense(COLUMNS, [("A [title]", ROWS)], right=["number"], wraps="words", gives_up=["picture"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert {"name", "number", "first_of_all", "second", "short", "1,000", "2", "[x]", "[title]"} <= set(words)
    places = [words.index(one) for one in SENTENCE.split()]
    assert places == sorted(places)
    others = sum(map(len, ("first_of_all", "number", "picture"))) + 3 * 2
    assert ("(a wider terminal shows: picture)" in " ".join(words)) == (width < others - 2) == ("▁▂▃" not in words)
    first = next(line for line in lines if line.startswith("first_of_all"))
    assert ("one two" in first) == (width - others >= WRAPPED_MIN)
