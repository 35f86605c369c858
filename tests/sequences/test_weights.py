"""Weight files: what is written is read; what is missing, cut off or of another shape is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tests.sequences.examples import KINDS, config, mixed, tensors

from obligor.errors import BadInput, IntegrityError
from obligor.sequences.weights import Config, Kind, dump, parse, read, shapes, write


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(kind: Kind, tmp_path: Path) -> None:
    chosen = config(kind)
    own = tensors(chosen)
    name = write(tmp_path / "encoder.safetensors", chosen, own)
    found = read(tmp_path / "encoder.safetensors", name)
    assert found.config == chosen
    assert found.heads == ("default", "hazard")
    assert found.sha256 == name
    assert {key: one.tobytes() for key, one in found.tensors.items()} == {k: t.tobytes() for k, t in own.items()}
    assert dump(found.config, dict(reversed(list(found.tensors.items())))) == dump(chosen, own)


def test_other_metadata_comes_back_and_the_bytes_are_always_the_same() -> None:
    chosen = config("gru")
    told = {f"key{i}": f"ä{i}" for i in range(12)}
    content = dump(chosen, tensors(chosen), told)
    assert parse(content, sha256(content)).metadata == told
    assert {dump(chosen, tensors(chosen), dict(sorted(told.items(), reverse=i % 2 > 0))) for i in range(6)} == {content}


def test_configuration_is_json_with_all_keys() -> None:
    chosen = config("transformer")
    data = json.loads(chosen.to_json())
    assert data == {
        "format": 1,
        "kind": "transformer",
        "width": 11,
        "hidden": 16,
        "layers": 2,
        "heads": 2,
        "tail": 12,
        "sizes": [5, 9, 4, 17, 3],
        "fading_days": [2, 40],
    }
    assert Config.from_json(chosen.to_json()) == chosen


def test_a_configuration_of_before_sums_faded_stays_what_it_was() -> None:
    chosen = config("gru", fading_days=())
    assert "fading_days" not in chosen.to_json()
    assert Config.from_json(chosen.to_json()) == chosen
    with pytest.raises(BadInput, match=r"\$\.fading_days: expected spans that differ, got \[7, 7\]"):
        Config.from_json(chosen.to_json().replace('"format"', '"fading_days":[7,7],"format"'))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "lstm", "Invalid enum value 'lstm'"),
        ("hidden", 0, r"Expected `int` >= 1 - at `\$.hidden`"),
        ("sizes", [3, "4"], r"Expected `int`, got `str` - at `\$.sizes\[1\]`"),
        ("format", 2, "2"),
        ("depth", 3, "unknown field `depth`"),
        ("heads", 3, r"\$.heads: expected 2 x heads to divide hidden 16, got 3"),
        ("tail", 0, r"\$.tail: expected the number of events"),
        ("layers", None, r"\$.layers: expected the key, got none"),
    ],
)
def test_a_wrong_configuration_is_refused(key: str, value: Any, message: str) -> None:
    data = json.loads(config("transformer").to_json()) | {key: value}
    if value is None:
        del data[key]
    with pytest.raises(BadInput, match=message):
        Config.from_json(json.dumps(data))


def test_recurrent_encoders_have_one_layer() -> None:
    with pytest.raises(BadInput, match=r"\$.layers: expected 1 for 'gru', got 2"):
        dump(config("gru", layers=2), {})


def test_nothing_is_parsed_before_the_hash_fits() -> None:
    content = dump(config("gru"), tensors(config("gru")))
    changed = content[:-1] + bytes([content[-1] ^ 1])
    for wrong in (changed, content[:-5], b"{}"):
        with pytest.raises(IntegrityError, match=f"expected SHA-256 {sha256(content)}, got {sha256(wrong)}"):
            parse(wrong, sha256(content))


def test_a_file_that_is_cut_off_names_the_tensor() -> None:
    content = dump(config("gru"), tensors(config("gru")))
    for cut in (content[:-5], content[: len(content) // 2]):
        with pytest.raises(IntegrityError, match=r"\$\['[a-z_.0-9]+'\]: .*bytes to end at \d+, got \d+ in all"):
            parse(cut, sha256(cut))
    for cut in (content[:300], content[:5], b""):
        with pytest.raises(IntegrityError, match="expected a header of"):
            parse(cut, sha256(cut))
    damaged = content[:8] + b"!" + content[9:]
    with pytest.raises(IntegrityError, match="expected a header of JSON"):
        parse(damaged, sha256(damaged))
    longer = content + b"more"
    with pytest.raises(IntegrityError, match="no safetensors file"):
        parse(longer, sha256(longer))


def test_a_file_without_a_configuration_is_refused() -> None:
    content = safetensors.numpy.save(tensors(config("gru")))
    with pytest.raises(BadInput, match="expected the encoder's configuration as 'config' in the metadata"):
        parse(content, sha256(content))


def test_every_tensor_that_does_not_fit_is_named() -> None:
    chosen = config("gru")
    own = tensors(chosen)
    own["gru.weight_hh"] = own["gru.weight_hh"][:-1]
    own["token.2"] = own["token.2"].astype(np.float64)
    own["gru.bias_hhh"] = own.pop("gru.bias_hh")
    own["head.default.hidden"] = own["head.default.hidden"].T
    own["readout.empty"][3] = np.nan
    with pytest.raises(BadInput) as error:
        dump(chosen, own)
    assert [str(one) for one in error.value.problems] == [
        "$['gru.bias_hh']: expected float32 of shape (48,), got no such tensor",
        "$['gru.bias_hhh']: expected no such tensor; did you mean 'gru.bias_hh'?",
        "$['gru.weight_hh']: expected float32 of shape (48, 16), got float32 of shape (47, 16)",
        "$['head.default.hidden']: expected float32 of shape (7, 114), got float32 of shape (114, 7)",
        "$['readout.empty']: expected finite numbers, got nan at (3,)",
        "$['token.2']: expected float32 of shape (4, 11), got float64 of shape (4, 11)",
    ]


def test_experts_are_counted_by_the_gate() -> None:
    chosen = config("gru")
    own = mixed(chosen, tensors(chosen), 3)
    assert parse(dump(chosen, own), sha256(dump(chosen, own))).heads == ("default", "hazard")
    own["expert.0.hidden"] = own["head.default.hidden"][0]
    own["head.default.hidden"] = own["head.default.hidden"][0]
    own["head.hazard.gate_bias"] = own["head.hazard.gate_bias"][:2]
    with pytest.raises(BadInput) as error:
        dump(chosen, own)
    assert [one.path for one in error.value.problems] == [
        *("$['expert.0.hidden']", "$['head.default.hidden']"),
        *("$['head.hazard.gate']", "$['head.hazard.hidden']", "$['head.hazard.hidden_bias']"),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_checked_on_reading_too(kind: Kind) -> None:
    chosen = config(kind)
    own = tensors(chosen)
    for name in shapes(chosen):
        rest = {key: one for key, one in own.items() if key != name}
        content = safetensors.numpy.save(rest, {"config": chosen.to_json()})
        with pytest.raises(BadInput, match=rf"{name}'\]: expected float32 of shape .*, got no such tensor"):
            parse(content, sha256(content))
