"""Streaming, in chunks, in a batch, from bytes and in plain Python: the same bits; and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.test_golden import without_extensions
from tests.sequences.bits import bits
from tests.sequences.encoder_twin import Twin, Vector
from tests.sequences.examples import DAY, KINDS, START, Events, config, encoder, events, loaded, mixed, tensors

from obligor.errors import BadInput, IntegrityError, LimitError
from obligor.sequences import encoder as module
from obligor.sequences.encoder import Encoder
from obligor.sequences.state import State
from obligor.sequences.weights import Kind

ROOT = Path(__file__).parents[2]
ENCODERS = {kind: encoder(kind, seed=2, hidden=12) for kind in KINDS}


def streamed(own: Encoder, come: Events) -> State:
    state = own.start()
    for i in range(len(come.time)):
        own.advance(state, *come.cut(i, i + 1))
    return state


def in_chunks(own: Encoder, come: Events, cuts: list[int]) -> State:
    """Return the state after events that came in chunks, written and read before each."""
    state = own.start()
    for start, stop in zip([0, *cuts], [*cuts, len(come.time)], strict=True):
        state = own.state(state.to_bytes())
        own.advance(state, *come.cut(start, stop))
    return state


@settings(max_examples=40, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS), n=st.integers(0, 40), seed=st.integers(0, 2**16))
def test_streamed_in_chunks_in_a_batch_and_from_bytes_are_equal(
    data: st.DataObject, kind: Kind, n: int, seed: int
) -> None:
    own, come = ENCODERS[kind], events(n, seed)
    as_of = int(come.time[-1]) + data.draw(st.integers(0, 10**13)) if n else 0
    expected = streamed(own, come)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    chunked = in_chunks(own, come, cuts)
    assert chunked.to_bytes() == expected.to_bytes()
    vector = own.readout(expected, as_of).tobytes()
    assert own.readout(chunked, as_of).tobytes() == vector
    assert own.readout(own.state(expected.to_bytes()), as_of).tobytes() == vector
    offsets = np.array([0, n])
    assert own.encode_many(*come, offsets, np.array([as_of])).tobytes() == vector


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=9), kind=st.sampled_from(KINDS), threads=st.integers(1, 3)
)
def test_a_batch_is_its_sequences(lengths: list[int], kind: Kind, threads: int) -> None:
    own = ENCODERS[kind]
    each = [events(n, seed) for seed, n in enumerate(lengths)]
    flat = Events.joined(each)
    as_of = np.array([int(one.time[-1]) + 77 * DAY if len(one.time) else 0 for one in each])
    found = own.encode_many(*flat, np.concatenate([[0], np.cumsum(lengths)]), as_of, threads)
    for b, one in enumerate(each):
        assert found[b].tobytes() == own.readout(streamed(own, one), int(as_of[b])).tobytes()


@settings(max_examples=15, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS), threads=st.integers(1, 2))
def test_slices_may_overlap_and_go_on(data: st.DataObject, kind: Kind, threads: int) -> None:
    own, come = ENCODERS[kind], events(40, 9)
    edges = st.tuples(st.sampled_from([0, 0, 0, 7, 20]), st.integers(0, 40)).filter(lambda pair: pair[0] <= pair[1])
    slices = data.draw(st.lists(edges, min_size=1, max_size=12))
    if data.draw(st.booleans()):
        slices.sort()
    begins, ends = np.array(slices).T
    as_of = np.array([int(come.time[-1])] * len(slices))
    found = own.encode_slices(*come, begins, ends, as_of, threads)
    for b, (start, stop) in enumerate(slices):
        assert found[b].tobytes() == own.readout(streamed(own, come.cut(start, stop)), int(as_of[b])).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("held", [0, 3, 12, 30])
def test_slices_go_on_from_a_state(kind: Kind, threads: int, held: int) -> None:
    own, come = ENCODERS[kind], events(60, 9)
    state = streamed(own, come.cut(0, held))
    before = state.to_bytes()
    slices = [(30, 30), (30, 31), (30, 37), (30, 37), (30, 50), (33, 36), (41, 60), (41, 41)]
    begins, ends = np.array(slices).T
    as_of = np.array([int(come.time[-1])] * len(slices))
    found = own.encode_slices(*come, begins, ends, as_of, threads, after=state)
    assert state.to_bytes() == before
    for b, (start, stop) in enumerate(slices):
        expected = streamed(own, Events.joined([come.cut(0, held), come.cut(start, stop)]))
        assert found[b].tobytes() == own.readout(expected, int(as_of[b])).tobytes()
    nothing = np.empty(0, np.int64)
    assert own.encode_slices(*come, nothing, nothing, nothing, threads, after=state).shape == (0, own.size)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_that_do_not_fit_their_state_are_refused(kind: Kind) -> None:
    own, come = ENCODERS[kind], events(20, 9)
    state, last = streamed(own, come.cut(0, 10)), int(come.time[9])
    with pytest.raises(BadInput, match=rf"slices\[1\]\.time\[0\]: expected {last} or later, got {int(come.time[4])}"):
        own.encode_slices(*come, np.array([10, 4]), np.array([12, 6]), np.array([2**62, 2**62]), after=state)
    with pytest.raises(BadInput, match=rf"slices\[0\]\.as_of: expected the last event's {last} or later"):
        own.encode_slices(*come, np.array([12]), np.array([12]), np.array([last - 1]), after=state)
    with pytest.raises(BadInput, match="expected a state of the encoder"):
        own.encode_slices(
            *come, np.array([12]), np.array([12]), np.array([last]), after=encoder(kind, seed=3, hidden=12).start()
        )


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_any_layout_are_taken(kind: Kind) -> None:
    own, come = ENCODERS[kind], events(20, 9)
    state, as_of = own.start(), int(come.time[-1])
    own.advance(state, np.asfortranarray(come.codes), np.repeat(come.parts, 2, axis=0)[::2], come.time)
    for array in come:
        array.flags.writeable = False  # as a memory-mapped column is
    assert streamed(own, come).to_bytes() == state.to_bytes()
    found = own.encode_many(*come, np.array([0, 20]), np.array([as_of]))
    assert found.tobytes() == own.readout(state, as_of).tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [4, 12, 16, 28])
@pytest.mark.parametrize("n", [0, 1, 7, 30])
def test_the_bits_are_those_of_plain_python(kind: Kind, hidden: int, n: int) -> None:
    chosen, come = config(kind, hidden), events(n, hidden + n)
    own, twin = Encoder(loaded(chosen, tensors(chosen, n))), Twin(chosen, tensors(chosen, n))
    as_of = int(come.time[-1]) + 1_234_567 if n else START
    vector = own.readout(streamed(own, come), as_of)
    assert vector.tolist() == twin.readout(come, as_of)
    for name, found in own.heads(vector).items():
        assert found.tolist() == twin.head(name, vector.tolist())


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_heads_may_share_experts(experts: int) -> None:
    chosen, come = config("gru"), events(12, 5)
    own = mixed(chosen, tensors(chosen), experts)
    one, twin = Encoder(loaded(chosen, own)), Twin(chosen, own)
    vector = one.readout(streamed(one, come), int(come.time[-1]))
    found = one.heads(vector)
    assert list(found) == ["default", "hazard"]
    assert {name: odds.tolist() for name, odds in found.items()} == {
        name: twin.head(name, vector.tolist()) for name in found
    }
    own["head.default.hidden_bias"][0] += np.float32(1.0)
    again = Encoder(loaded(chosen, own)).heads(vector)
    assert (again["default"] != found["default"]).all()
    assert (again["hazard"] == found["hazard"]).all()
    assert list(one.heads(vector, ["hazard"])) == ["hazard"]


class Backwards(Twin):
    """Adds the products from the last to the first."""

    def add(self, start: float, products: list[float]) -> float:  # type: ignore[override]
        """Return the sum in another order."""
        return super().add(start, products[::-1])


class Rounded(Twin):
    """Rounds otherwise once in each encoder: a gate's tanh, a division by the root, an angle."""

    def tanh(self, x: float) -> float:
        """Return it by the C library."""
        return math.tanh(x)

    def unit(self, x: Vector, weight: Vector) -> Vector:
        """Multiply by the weight first."""
        root = math.sqrt(self.add(0.0, [one * one for one in x]) / len(x) + 1e-5)
        return [one * w / root for one, w in zip(x, weight, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broken", [Backwards, Rounded])
def test_another_arithmetic_has_other_bits(kind: Kind, broken: type[Twin]) -> None:
    chosen, come = config(kind, 16), events(20, 1)
    own = Encoder(loaded(chosen, tensors(chosen)))
    as_of = int(come.time[-1])
    assert own.readout(streamed(own, come), as_of).tolist() != broken(chosen, tensors(chosen)).readout(come, as_of)


def test_the_same_bits_without_vector_extensions() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.sequences.bits"],
        cwd=ROOT,
        env=without_extensions(),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["cpu"] == "generic"
    assert found["bits"] == bits()


def test_the_bits_are_those_of_earlier_versions() -> None:
    # A decision that an earlier version took with a sequence model replays only as long as these stay.
    assert bits() == json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_the_application_comes_last_and_leaves_the_state(kind: Kind) -> None:
    own, come = ENCODERS[kind], events(20, 8)
    state = streamed(own, come.cut(0, 19))
    before = state.to_bytes()
    vector = own.ask(state, *come.cut(19, 20))
    assert state.to_bytes() == before
    assert vector.tobytes() == own.readout(streamed(own, come), int(come.time[-1])).tobytes()
    assert vector.tobytes() != own.readout(state, int(come.time[-1])).tobytes()
    assert vector[-2] == 0.0  # the age at its own time


@pytest.mark.parametrize("kind", KINDS)
def test_an_entity_without_events_has_the_trained_readout(kind: Kind) -> None:
    chosen = config(kind)
    own, weights = Encoder(loaded(chosen, tensors(chosen))), tensors(chosen)
    assert own.readout(own.start(), START).tolist() == weights["readout.empty"].tolist()
    many = own.encode_many(*events(0), np.array([0, 0, 0]), np.array([START, START]))
    assert many.tolist() == [weights["readout.empty"].tolist()] * 2
    nobody = np.array([], np.int64)
    assert own.encode_many(*events(0), np.array([0]), nobody, 2).shape == (0, own.size)
    assert own.ask(own.start(), *events(1)).tolist() != weights["readout.empty"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_entity_with_a_hundred_thousand_events(kind: Kind) -> None:
    own, come = ENCODERS[kind], events(100_000, 3)
    state, as_of = own.start(), int(come.time[-1]) + DAY
    own.advance(state, *come.cut(0, 60_000))
    own.advance(state, *come.cut(60_000, 100_000))
    vector = own.readout(state, as_of)
    assert np.isfinite(vector).all()
    assert own.encode_many(*come, np.array([0, 100_000]), np.array([as_of])).tobytes() == vector.tobytes()
    expected = config(kind).tail if kind == "transformer" else 100_000
    assert vector[-1] == pytest.approx(np.log2(1 + expected) / 16, rel=1e-14)


def test_the_tail_is_the_last_events() -> None:
    own, come = ENCODERS["transformer"], events(30, 4)
    as_of = int(come.time[-1])
    last = own.readout(streamed(own, come.cut(18, 30)), as_of).tobytes()
    assert own.readout(streamed(own, come), as_of).tobytes() == last
    assert own.readout(streamed(own, come.cut(19, 30)), as_of).tobytes() != last


def spoil_code(come: Events) -> None:
    come.codes[2, 1] = 9


def spoil_part(come: Events) -> None:
    come.codes[2, 1], come.parts[2, 1] = 8, 0.5


def spoil_time(come: Events) -> None:
    come.time[2] = START - 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_code, r"\.codes\[2, 1\]: expected a code below 9 .*; got code 9"),
        (spoil_part, r"\.codes\[2, 1\]: .*and 0 at the last code; got code 8, part 0.5"),
        (spoil_time, r"\.time\[2\]: expected \d+ or later, got 1749999999999999"),
    ],
)
def test_what_no_table_has_is_refused_and_changes_nothing(
    kind: Kind, spoil: Callable[[Events], None], message: str
) -> None:
    own, come = ENCODERS[kind], events(5, 6)
    state = streamed(own, come)
    before, later = state.to_bytes(), Events(come.codes.copy(), come.parts.copy(), come.time + 400 * DAY)
    spoil(later)
    with pytest.raises(BadInput, match=r"^\$" + message):
        own.advance(state, *later)
    assert state.to_bytes() == before
    both = Events.joined([come, later])
    with pytest.raises(BadInput, match=r"^\$\.slices\[1\]" + message):
        own.encode_many(*both, np.array([0, 5, 10]), np.array([2**62, 2**62]))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_calls_are_refused(kind: Kind) -> None:
    own, come = ENCODERS[kind], events(5, 6)
    state = streamed(own, come)
    with pytest.raises(BadInput, match="expected codes of int32, parts of float32 and times of int64, got int64"):
        own.advance(state, come.codes.astype(np.int64), come.parts, come.time)
    with pytest.raises(BadInput, match=r"expected codes \(n, 5\)"):
        own.advance(state, come.codes[:, :4], come.parts, come.time)
    with pytest.raises(BadInput, match=r"times \(n,\), got \(5, 5\), \(5, 5\) and \(4,\)"):
        own.advance(state, come.codes, come.parts, come.time[:4])
    with pytest.raises(BadInput, match=r"\$\.as_of: expected the last event's \d+ or later, got 1"):
        own.readout(state, 1)
    with pytest.raises(BadInput, match=r"slices\[0\]\.as_of: expected the last event's \d+ or later, got 1"):
        own.encode_many(*come, np.array([0, 5]), np.array([1]))
    with pytest.raises(BadInput, match=r"\$\.offsets: expected them to end at 5 events, got 4"):
        own.encode_many(*come, np.array([0, 4]), np.array([2**62]))
    with pytest.raises(BadInput, match="expected offsets of int64"):
        own.encode_many(*come, np.array([1, 5]), np.array([2**62]))
    with pytest.raises(BadInput, match=r"\$\.as_of: expected int64 \(1,\), got int64 \(2,\)"):
        own.encode_many(*come, np.array([0, 5]), np.array([2**62, 1]))
    with pytest.raises(BadInput, match=r"\$\.slices\[1\]: expected a range within 5 events, got 3..6"):
        own.encode_slices(*come, np.array([0, 3]), np.array([2, 6]), np.array([2**62, 2**62]))
    with pytest.raises(BadInput, match="expected a readout of float64"):
        own.heads(np.zeros(3))
    with pytest.raises(BadInput, match="expected a state of the encoder"):
        own.advance(encoder(kind, 9, 12).start(), *come)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_is_one_encoders(kind: Kind) -> None:
    own, other = ENCODERS[kind], encoder(kind, seed=3, hidden=12)
    content = streamed(own, events(5)).to_bytes()
    with pytest.raises(IntegrityError, match="expected the encoder"):
        other.state(content)
    with pytest.raises(IntegrityError, match="expected format 1, got 2"):
        own.state(b"\2" + content[1:])
    with pytest.raises(IntegrityError, match=r"expected \d+ bytes after its header, got"):
        own.state(content[:-1])
    with pytest.raises(IntegrityError, match="expected at least"):
        own.state(content[:20])


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_that_differ_in_a_head_share_states(kind: Kind) -> None:
    own, other = tensors(config(kind)), tensors(config(kind))
    other["head.default.out_bias"] += np.float32(1.0)
    other["readout.empty"] += np.float32(1.0)
    one, two = Encoder(loaded(config(kind), own)), Encoder(loaded(config(kind), other))
    come = events(9)
    vector = two.readout(two.state(streamed(one, come).to_bytes()), int(come.time[-1]))
    assert two.heads(vector)["default"] == pytest.approx(one.heads(vector)["default"] + 1.0)
    assert one.sha256 != two.sha256


def test_the_service_imports_no_torch_and_encoders_only_where_a_bundle_has_one() -> None:
    script = """
import sys, obligor.decisions.service
print("obligor.sequences.encoder" in sys.modules)
import obligor.sequences.online, obligor.sequences.scoring
print(sorted({"torch", "numba"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False", "['numba']"]


def test_vocabularies_too_large_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLDED_BYTES_MAX", 1000)
    with pytest.raises(LimitError, match="token tables of 38 rows: expected at most 1000 bytes, got 7296"):
        encoder("gru")


def test_weights_that_grow_beyond_float64() -> None:
    chosen = config("linear_attention")
    own = tensors(chosen)
    for name in ("la.key", "la.value", "la.query", "la.out", "la.norm", "la.gate"):
        own[name] = np.full_like(own[name], 1e38)
    for i in range(5):
        own[f"token.{i}"] = np.full_like(own[f"token.{i}"], 1e38)
    grown = Encoder(loaded(chosen, own))
    state = streamed(grown, events(3))
    with pytest.raises(LimitError, match="a result is beyond float64"):
        grown.readout(state, 2**62)
