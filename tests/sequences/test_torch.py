"""The portable encoders against PyTorch's float32: within 1e-4 log-odds, also after 10,000 events."""

from __future__ import annotations

import numpy as np
import pytest
from tests.sequences.examples import DAY, KINDS, Events, Tensors, config, events, loaded, mixed, tensors

from obligor.sequences.encoder import Encoder
from obligor.sequences.weights import Config, Kind

pytest.importorskip("torch", reason="needs the extra `sequences`: pip install obligor[sequences]")

BOUND = 1e-4


def difference(chosen: Config, own: Tensors, peers: Tensors, come: Events) -> float:
    """Return the largest difference of any head's log-odds."""
    from tests.sequences.peer import Peer

    encoder = Encoder(loaded(chosen, own))
    state, as_of = encoder.start(), int(come.time[-1]) + 3 * DAY if len(come.time) else 0
    encoder.advance(state, *come)
    found = encoder.heads(encoder.readout(state, as_of))
    theirs = Peer(chosen, peers).log_odds(come, as_of)
    assert found.keys() == theirs.keys()
    return max(float(np.abs(found[name] - theirs[name]).max()) for name in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "hidden"), [(0, 16), (1, 16), (300, 64), (10_000, 32)])
def test_log_odds_are_torchs(kind: Kind, n: int, hidden: int) -> None:
    chosen = config(kind, hidden, **({"tail": 256} if kind == "transformer" else {}))
    own = tensors(chosen, n)
    assert difference(chosen, own, own, events(n, n)) < BOUND


def test_mixtures_of_experts_are_torchs() -> None:
    chosen = config("gru", 32)
    own = mixed(chosen, tensors(chosen), 4)
    assert difference(chosen, own, own, events(300, 2)) < BOUND
    assert difference(chosen, own, own | {"head.default.gate": -own["head.default.gate"]}, events(300, 2)) > BOUND


@pytest.mark.parametrize(
    ("kind", "name"),
    [("gru", "gru.weight_hh"), ("gru", "token.1"), ("linear_attention", "la.decay"), ("transformer", "layer.1.qkv")],
)
def test_a_difference_would_be_seen(kind: Kind, name: str) -> None:
    chosen = config(kind, 32)
    own = tensors(chosen, 1)
    changed = own | {name: np.roll(own[name], 1, 0)}
    assert difference(chosen, own, changed, events(300, 1)) > BOUND
