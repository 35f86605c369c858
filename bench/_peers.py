"""Peers of the benchmarks that need libraries of their own: each in an environment of its own, made where missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["FEAST", "LIFESTREAM", "Peer", "peer_python"]

INSTALL_SECONDS = 900


class Peer:
    """What is installed, and where."""

    def __init__(self, title: str, folder: str, *requirements: str) -> None:
        self.title, self.folder, self.requirements = title, folder, requirements


FEAST = Peer("Feast", "feast-0.67", "feast[redis]==0.67.0")
# It imports a module of dask that it does not declare.
LIFESTREAM = Peer("pytorch-lifestream", "lifestream-0.7.0", "pytorch-lifestream==0.7.0", "torch==2.13.0", "dask")


def peer_python(peer: Peer) -> Path | None:
    """Return the Python of a peer's environment, made where there is none; None, and why is said, where that fails."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "obligor-bench" / peer.folder
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements]
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{peer.title} could not be installed, and is left out: {error}")
        return None
    done.touch()
    return python
