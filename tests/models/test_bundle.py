"""The bundle: named by its content, checked before it is parsed, written all or nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.models.lender import POLICY, plan

from obligor import parts as module
from obligor.errors import BadInput, IntegrityError, NotFound
from obligor.models.bundle import PARTS, Bundle, write_bundle
from obligor.parts import MANIFEST, encode_json


def _copy(bundle: Bundle, folder: Path) -> Path:
    target = folder / bundle.hash
    shutil.copytree(bundle.path, target)
    return target


def _parts(bundle: Bundle) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in PARTS}


def test_holds_what_was_trained(bundle: Bundle) -> None:
    assert bundle.path.name == bundle.hash
    assert len(bundle.hash) == 64
    assert bundle.plan.hash == plan().hash
    assert bundle.policy == POLICY
    assert bundle.reasons == {"utilisation": "UTILISATION", "tenure": "TENURE", "channel": "CHANNEL", "noise": "NOISE"}
    assert bundle.training["snapshot"] == {"log": "made"}
    assert {path.name for path in bundle.path.iterdir()} == {*PARTS, MANIFEST}


@pytest.mark.parametrize("part", [*PARTS, MANIFEST])
def test_one_changed_byte_is_found(bundle: Bundle, part: str, tmp_path: Path) -> None:
    folder = _copy(bundle, tmp_path)
    content = bytearray((folder / part).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / part).write_bytes(content)
    with pytest.raises(IntegrityError, match=part.replace(".", r"\.")):
        Bundle.load(folder)


def test_nothing_is_parsed_before_the_hashes_fit(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _copy(bundle, tmp_path)
    (folder / "plan.json").write_bytes((folder / "plan.json").read_bytes() + b" ")
    parsed: list[bytes] = []

    def loads(text: bytes) -> object:
        parsed.append(text)
        return json.JSONDecoder().decode(text.decode())

    monkeypatch.setattr(json, "loads", loads)
    with pytest.raises(IntegrityError):
        Bundle.load(folder)
    assert parsed == [(folder / MANIFEST).read_bytes()]  # whose hash is the folder's name


def test_a_part_too_many_or_too_few(bundle: Bundle, tmp_path: Path) -> None:
    folder = _copy(bundle, tmp_path)
    (folder / "model.pkl").write_bytes(b"never read")
    (folder / "schema.json").unlink()
    with pytest.raises(IntegrityError) as caught:
        Bundle.load(folder)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert found == {"$.model.pkl": "no such part is known", "$.schema.json": "the part is missing"}


def test_a_part_that_is_a_link_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = _copy(bundle, tmp_path)
    (tmp_path / "elsewhere").write_bytes((folder / "schema.json").read_bytes())
    (folder / "schema.json").unlink()
    (folder / "schema.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="expected a plain file"):
        Bundle.load(folder)


def test_another_name_is_another_bundle(bundle: Bundle, tmp_path: Path) -> None:
    renamed = _copy(bundle, tmp_path).rename(tmp_path / "champion")
    with pytest.raises(IntegrityError, match="the folder is 'champion'"):
        Bundle.load(renamed)


def test_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no bundle at"):
        Bundle.load(tmp_path / "nothing")


def test_the_same_parts_are_one_bundle(bundle: Bundle, tmp_path: Path) -> None:
    first, second = write_bundle(tmp_path, _parts(bundle)), write_bundle(tmp_path, _parts(bundle))
    assert first == second
    assert first.name == bundle.hash
    assert [path.name for path in tmp_path.iterdir()] == [bundle.hash]
    changed = {**_parts(bundle), "policy.toml": POLICY + b"# stricter\n"}
    assert write_bundle(tmp_path, changed).name != bundle.hash


def test_a_failed_write_leaves_nothing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "_write_durably", full)
    with pytest.raises(OSError, match="no space"):
        write_bundle(tmp_path, _parts(bundle))
    assert list(tmp_path.iterdir()) == []


def test_parts_are_complete_or_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a bundle has the parts"):
        write_bundle(tmp_path, {"plan.json": b"{}"})
    broken = {**_parts(bundle), "trees.json": b"{}"}
    with pytest.raises(IntegrityError, match="trees: not a model"):
        Bundle.load(write_bundle(tmp_path, broken))
    other = {**_parts(bundle), "reference.json": encode_json({"application": "a", "features": [1.0], "margin": 0.0})}
    with pytest.raises(IntegrityError, match="reference: expected 5 features"):
        Bundle.load(write_bundle(tmp_path, other))
    headless = {**_parts(bundle), "calibration.json": b"{}"}
    with pytest.raises(IntegrityError, match="does not have the form"):
        Bundle.load(write_bundle(tmp_path, headless))


def test_scoring_needs_neither_xgboost_nor_pickle(bundle: Bundle) -> None:
    script = (
        "import sys, numpy; from obligor.models.bundle import Bundle;"
        f"b = Bundle.load({str(bundle.path)!r}); x = b.reference.features;"
        "print(repr(b.score(x).pd), b.contributions(x).any(), 'xgboost' in sys.modules, 'polars' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert found == [repr(bundle.score(bundle.reference.features).pd), "False", "False", "False"]
