"""`python -m obligor`: the same as the `obligor` command."""

from obligor.cli import main

main()
