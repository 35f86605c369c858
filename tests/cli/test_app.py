"""The commands as a whole."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def test_every_command_has_help_with_an_example(run: Run) -> None:
    from obligor.cli.app import app

    names = [command.name for command in app.registered_commands]
    assert len(names) == 13
    for name in names:
        assert f"obligor {name}" in " ".join(run(str(name), "--help").split())


def test_the_readme_names_every_command(run: Run) -> None:
    from obligor.cli.app import app

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert [c.name for c in app.registered_commands if f"obligor {c.name}" not in readme] == []
