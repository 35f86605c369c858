"""What commands print."""

from __future__ import annotations

import json

import pytest
import typer

from obligor.cli.output import Output, guarded, progress_bar
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
