"""The commands as a whole."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def test_every_command_has_help_with_an_example(run: Run) -> None:
    from obligor.cli.app import app

    names = [str(command.name) for command in app.registered_commands]
    assert "serve" in names
    for group in app.registered_groups:
        assert group.typer_instance is not None
        names += [f"{group.name} {command.name}" for command in group.typer_instance.registered_commands]
    assert "lake keep" in names
    for name in names:
        assert f"obligor {name}" in " ".join(run(*name.split(), "--help").split())


def test_the_readme_names_every_command(run: Run) -> None:
    from obligor.cli.app import app

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    names = [*(one.name for one in app.registered_commands), *(one.name for one in app.registered_groups)]
    assert [name for name in names if f"obligor {name}" not in readme] == []
