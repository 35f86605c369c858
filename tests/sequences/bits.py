"""Prints which CPU Numba compiles for and a hash of the bits of many results: run in processes that must agree.

python -m tests.sequences.bits
"""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
from tests.sequences.examples import KINDS, encoder, events

SEED = 5


def bits() -> dict[str, str]:
    """Return a hash of states, readouts and log-odds by kind of encoder."""
    found = {}
    for kind in KINDS:
        for hidden in (16, 44):
            own, come = encoder(kind, SEED, hidden), events(150, SEED)
            state, digest = own.start(), hashlib.sha256()
            own.advance(state, *come)
            vector = own.readout(state, int(come.time[-1]) + 1_000_003)
            offsets = np.array([0, 0, 1, 60, 150])
            many = own.encode_many(*come, offsets, np.full(4, come.time[-1]), 2)
            for one in (vector, many, *own.heads(vector).values()):
                digest.update(one.tobytes())
            digest.update(state.to_bytes())
            found[f"{kind}-{hidden}"] = digest.hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps({"cpu": os.environ.get("NUMBA_CPU_NAME"), "bits": bits()}))
