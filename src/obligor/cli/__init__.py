"""The command line: `obligor COMMAND`, each with `--help` that shows an example."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from obligor.cli.app import app

    app()
