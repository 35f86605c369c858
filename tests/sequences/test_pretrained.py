"""Encoders that are held: found by their names, and refused where their parts do not belong together."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sequences import twin
from tests.sequences.examples import config, tensors

from obligor.errors import IntegrityError, NotFound
from obligor.parts import write_parts
from obligor.sequences.pretrained import PARTS, Encoders
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import dump

TOKENIZER = Tokenizer.load(twin.tokenizer_data("d"))
TRAINING = {"model": {"sequence": "history"}}


def _weights(sizes: tuple[int, ...], seed: int = 0) -> bytes:
    chosen = config("gru", sizes=sizes)
    return dump(chosen, tensors(chosen, seed, heads={}))


def test_encoders_are_found_by_name(tmp_path: Path) -> None:
    held = Encoders(tmp_path / "encoders")
    assert (held.names(), held.current()) == ([], None)
    with pytest.raises(NotFound, match="pretrain one first"):
        held.load()
    one, two = (held.write(TOKENIZER, _weights(TOKENIZER.sizes, seed), TRAINING) for seed in range(2))
    assert held.write(TOKENIZER, _weights(TOKENIZER.sizes), TRAINING).hash == one.hash
    assert held.names() == sorted([one.hash, two.hash])
    for found in (one, two, one):
        held.promote(found)
        assert held.load().hash == held.current() == found.hash
        assert held.load(found.hash[:8]).weights.sha256 == found.weights.sha256
    assert one.sequence == "history"
    assert one.encoder.config.sizes == TOKENIZER.sizes
    for name in ("", one.hash[:7], "0" * 8):
        with pytest.raises(NotFound, match=rf"no single encoder '{name}'.*held: .*{one.hash[:12]}"):
            held.load(name)


def test_weights_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    sizes = (*TOKENIZER.sizes[:-1], TOKENIZER.sizes[-1] + 1)
    with pytest.raises(IntegrityError, match="as the tokenizer has"):
        Encoders(tmp_path).write(TOKENIZER, _weights(sizes), TRAINING)
    assert list(tmp_path.iterdir()) == []
    parts = dict(zip(PARTS, (TOKENIZER.canonical, _weights(sizes), b"{}"), strict=True))
    with pytest.raises(IntegrityError, match="as the tokenizer has"):
        Encoders(tmp_path).load(write_parts(tmp_path, parts).name)
