"""`obligor compile`: the kernels, before anybody waits for one."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from obligor.cli.demo import lender, whole_path
from obligor.cli.options import AsJson
from obligor.cli.output import Output

__all__ = ["compile_ahead"]

CONSUMERS: Final = 200
MERCHANTS: Final = 2  # so few that each has as many events as it takes to be swept


def compile_ahead(as_json: AsJson = False) -> None:
    """Compile what else is compiled when it is first used: once an installation, as while an image is built.

    A tiny lender is simulated, learnt from and served in a folder of its own. Sequence models are not part of it.
    """
    out, started = Output(as_json), time.monotonic()
    out.say("Compiling what training, serving and replay run on: a minute or two, once an installation.")
    with tempfile.TemporaryDirectory(prefix="obligor-compile-") as folder:
        world = lender(CONSUMERS, seed=7, merchants=MERCHANTS)
        whole_path(Output(as_json=True), Path(folder) / "lender", world, decisions=1)
    seconds = time.monotonic() - started
    out.say(f"Done in {seconds:.0f} s.")
    out.result({"seconds": seconds})
