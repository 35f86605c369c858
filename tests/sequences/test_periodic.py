"""Periodic numbers: their tokens, their waves and what an encoder makes of them, against plain Python and numpy."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.draws import Batch as Worlds
from tests.features.draws import drawn, side_by_side
from tests.features.worlds import requests_of
from tests.sequences import twin
from tests.sequences.encoder_twin import Twin
from tests.sequences.examples import KINDS, SIZES, WAVES, Events, config, encoder, events, loaded, tensors
from tests.sequences.test_dataset import contents
from tests.sequences.test_encoder import in_chunks, streamed
from tests.sequences.test_torch import BOUND, difference

from obligor.errors import BadInput, IntegrityError
from obligor.features.narrowing import sequence_alone
from obligor.sequences.asked import Everyone
from obligor.sequences.encoder import Encoder
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.kernels.tokens import SPREADS_MAX
from obligor.sequences.pretrained import Encoders
from obligor.sequences.score import SequenceScore
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import FREQUENCY_MAX, Config, Kind, dump, parse, shapes, waves_of
from obligor.sequences.writing import write_dataset

PERIODIC = ("gap", "amount", "price")  # a magnitude, money by two sources, and a plain number
NULL = -(2**63)
ENCODERS = {kind: encoder(kind, seed=2, hidden=12, waves=WAVES) for kind in KINDS}


def _data() -> dict[str, Any]:
    return twin.tokenizer_data(sequence_alone(twin.plan(), twin.NAME).hash, PERIODIC)


@cache
def _worlds() -> Worlds:
    return side_by_side(drawn(count=40))


# ---- tokens ---------------------------------------------------------------------------------------------------------


def test_a_dataset_has_the_tokens_of_the_twin(tmp_path: Path) -> None:
    worlds, plan, data = _worlds(), twin.plan(), _data()
    own = twin.application_fields(len(worlds.requests))
    asked = requests_of(worlds.requests, own)
    made = write_dataset(tmp_path / "d", plan, twin.NAME, Tokenizer.load(data), twin.Log(worlds.facts), asked)
    found = contents(made)

    def expected(*faults: str) -> dict[int, list[twin.Token]]:
        each = zip(worlds.seen, worlds.requests, own.to_pylist(), strict=True)
        return {
            i: twin.expected(plan, data, facts, request, fields, faults)
            for i, (facts, request, fields) in enumerate(each)
        }

    assert found == expected()
    for fault in twin.PERIODIC_FAULTS:
        assert found != expected(fault), fault


def _prices(edges: tuple[float, ...], values: list[int]) -> list[tuple[int, float]]:
    """Return code and part of prices of sales."""
    data = _data()
    data["fields"][9] |= {"edges": list(edges), "size": 1 + len(edges)}
    alone = sequence_alone(twin.plan(), twin.NAME)
    price = next(one for one in alone.sequences[0].fields if one.name == "price")
    timeline = alone.timelines["consumer"]
    slot = next(one.slot for one in price.sources if timeline.selections[one.selection].event == "sale")
    rows = np.full((len(timeline.fields["sale"]), len(values)), NULL)
    rows[slot] = values
    time, mask = np.zeros(len(values), np.int64), np.full(len(values), 1 << alone.sequences[0].application)
    tokens = Tokenizer.load(data).encoder(alone, twin.NAME).rows(time, mask, rows, time)
    return list(zip(tokens.codes[:, 9].tolist(), tokens.parts[:, 9].tolist(), strict=True))


@pytest.mark.parametrize(
    ("edges", "values", "expected"),
    [
        # The middle is 10, a spread is 20: from the first quarter of the edges, 0, to the last, 20.
        ((-5.0, 0.0, 10.0, 20.0, 90.0), [NULL, 10, 0, 20], [(0, 0), (3, 0), (2, -0.5), (4, 0.5)]),
        ((-5.0, 0.0, 10.0, 20.0, 90.0), [-5, -1, 90], [(1, -0.75), (1, -0.550000011920929), (4, 4)]),
        ((-5.0, 0.0, 10.0, 20.0, 90.0), [-6, 91, -(2**62), 2**62], [(1, -0.75), (4, 4), (1, -0.75), (4, 4)]),
        ((0.0, 1.0, 2.0, 3.0, 1e9), [10**9, 2049, 2050, 10**12], [(4, 1024), (4, 1023.5), (4, 1024), (4, 1024)]),
        ((0.0, 10.0), [NULL, 0, 5, 10, 99], [(0, 0), (1, 0), (1, 0.5), (1, 1), (1, 1)]),
        ((7.0,), [NULL, 0, 7, 99], [(0, 0), (1, 0), (1, 0), (1, 0)]),
        ((), [NULL, 7], [(0, 0), (0, 0)]),
    ],
)  # fmt: skip
def test_numbers_at_and_beyond_the_edges(
    edges: tuple[float, ...], values: list[int], expected: list[tuple[int, float]]
) -> None:
    assert _prices(edges, values) == expected


def test_all_numbers_or_some_may_be_periodic() -> None:
    worlds = _worlds()

    def fitted(numbers: Any) -> Tokenizer:
        at = Everyone(max(one.as_of for one in worlds.requests), {0: 100_000})
        own = TokenSettings(numbers=numbers, intervals=4)
        return fit_tokenizer(twin.plan(), twin.NAME, twin.Log(worlds.facts), at, own)

    kinds = {
        name: {one.name: one.kind for one in fitted(numbers).fields if one.kind != "category"}
        for name, numbers in {"all": "periodic", "some": {"gap": "periodic", "price": "bins"}}.items()
    }
    assert kinds["all"] == dict.fromkeys(("gap", "amount", "due.delay", "price"), "periodic")
    assert kinds["some"] == {"gap": "periodic", "amount": "piecewise", "due.delay": "piecewise", "price": "bins"}
    one, other = fitted("periodic"), fitted("piecewise")
    assert [field.edges for field in one.fields] == [field.edges for field in other.fields]
    assert (one.sizes, one.hash != other.hash) == (other.sizes, True)
    assert Tokenizer.load(one.data) == one
    with pytest.raises(BadInput, match=r"\$\.numbers\['prise'\]: no number of 'history'; did you mean 'price'\?"):
        fitted({"prise": "periodic"})
    with pytest.raises(BadInput, match=r"\$\.numbers: 'waves'"):
        fitted("waves")


def test_edges_too_far_apart_are_refused() -> None:
    data = _data()
    data["fields"][9] |= {"edges": [-1e308, 0.0, 2.0, 1.7e308]}
    with pytest.raises(
        BadInput, match=r"\$\.fields\[9\]: expected edges that are less than the greatest float64 apart"
    ):
        Tokenizer.load(data)


# ---- what serving makes of them -------------------------------------------------------------------------------------


def _numpy_token(own: dict[str, Any], chosen: Config, codes: Any, parts: Any) -> Any:
    """The vector of an event (d,), by the definition."""
    x = np.zeros(chosen.width)
    for f, (code, part) in enumerate(zip(codes.tolist(), parts.astype(np.float64).tolist(), strict=True)):
        table = own[f"token.{f}"].astype(np.float64)
        if not (chosen.waves[f] and code):
            x += (1 - part) * table[code] + (part * table[code + 1] if part else 0)
        else:
            v = 2 * np.pi * ((own[f"frequency.{f}"].astype(np.float64) * part) % 1.0)
            x += np.concatenate([np.sin(v), np.cos(v)]) @ table[1:]
    return x


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), width=st.sampled_from([1, 4, 11]))
def test_a_token_is_sines_and_cosines_times_a_matrix(seed: int, width: int) -> None:
    """As a GRU shows it whose update gate is shut: after one event y is the hyperbolic tangent of a quarter of it."""
    chosen = config("gru", hidden=width, width=width, waves=WAVES)
    own = tensors(chosen, seed)
    own["gru.weight_ih"] = np.concatenate([np.zeros((2 * width, width)), 0.25 * np.eye(width)]).astype(np.float32)
    own["gru.bias_ih"] = np.repeat([0, -700, 0], width).astype(np.float32)
    own["gru.bias_hh"] = np.zeros(3 * width, np.float32)
    come = events(1, seed, waves=WAVES)
    one = Encoder(loaded(chosen, own))
    found = one.readout(streamed(one, come), int(come.time[0]))[:width]
    expected = np.tanh(0.25 * _numpy_token(own, chosen, come.codes[0], come.parts[0]))
    assert found == pytest.approx(expected, abs=2e-7)  # folded rows are rounded to float32


@settings(max_examples=30, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS), n=st.integers(0, 30), seed=st.integers(0, 2**16))
def test_streamed_in_chunks_in_a_batch_and_from_bytes_are_equal(
    data: st.DataObject, kind: Kind, n: int, seed: int
) -> None:
    own, come = ENCODERS[kind], events(n, seed, waves=WAVES)
    as_of = int(come.time[-1]) + data.draw(st.integers(0, 10**13)) if n else 0
    expected = streamed(own, come)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    chunked = in_chunks(own, come, cuts)
    assert chunked.to_bytes() == expected.to_bytes()
    vector = own.readout(expected, as_of).tobytes()
    assert own.encode_many(*come, np.array([0, n]), np.array([as_of])).tobytes() == vector
    after = own.encode_slices(
        *come, np.array([n // 2]), np.array([n]), np.array([as_of]), after=streamed(own, come.cut(0, n // 2))
    )
    assert after.tobytes() == vector


class _CosinesFirst(Twin):
    """Takes the rows of the sines for the cosines'."""

    def shares(self, f: int, code: int, part: float) -> list[tuple[int, float]]:
        """Return cosines before sines."""
        found = super().shares(f, code, part)
        k = self.config.waves[f]
        if not (k and code):
            return found
        return [(row, found[(place + k) % (2 * k)][1]) for place, (row, _) in enumerate(found)]


class _Radians(Twin):
    """Takes a frequency for radians a unit."""

    def angle(self, turns: float) -> float:
        """Return the turns themselves."""
        return turns


class _Present(Twin):
    """Takes what is absent for a number of 0."""

    def shares(self, f: int, code: int, part: float) -> list[tuple[int, float]]:
        """Return the waves of every number."""
        return super().shares(f, code or 1, part) if self.config.periodic[f] else super().shares(f, code, part)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [4, 12])
def test_the_bits_are_those_of_plain_python(kind: Kind, hidden: int) -> None:
    chosen, come = config(kind, hidden, waves=WAVES), events(12, hidden, waves=WAVES)
    weights = tensors(chosen, hidden)
    own = Encoder(loaded(chosen, weights))
    as_of = int(come.time[-1]) + 1_234_567
    vector = own.readout(streamed(own, come), as_of).tolist()
    assert vector == Twin(chosen, weights).readout(come, as_of)
    for fault in (_CosinesFirst, _Radians, _Present):
        assert vector != fault(chosen, weights).readout(come, as_of), fault


def test_what_is_absent_is_the_first_row_alone() -> None:
    chosen = config("gru", waves=WAVES)
    weights = tensors(chosen)
    for f, k in enumerate(WAVES):
        if k:
            weights[f"token.{f}"][0] = 0.0
    own, come = Encoder(loaded(chosen, weights)), events(20, 5, waves=WAVES)
    changed = weights | {f"frequency.{f}": weights[f"frequency.{f}"] * 2 for f, k in enumerate(WAVES) if k}
    other = Encoder(loaded(chosen, changed))

    def read(one: Encoder, absent: bool) -> bytes:
        codes, parts = come.codes.copy(), come.parts.copy()
        if absent:
            codes[:, np.array(WAVES) > 0], parts[:, np.array(WAVES) > 0] = 0, 0.0
        return one.readout(streamed(one, Events(codes, parts, come.time)), int(come.time[-1])).tobytes()

    assert read(own, absent=True) == read(other, absent=True)
    assert read(own, absent=False) != read(other, absent=False)


@pytest.mark.parametrize("kind", KINDS)
def test_far_numbers_and_high_frequencies_keep_their_digits(kind: Kind) -> None:
    """Whole turns are left out exactly: a frequency of 2^20 and a quarter turns numbers of whole 64ths as 1/4 does."""
    chosen = config(kind, waves=WAVES)
    own = tensors(chosen)
    high = dict(own)
    for f, k in enumerate(WAVES):
        if k:
            own[f"frequency.{f}"] = np.linspace(0.0, 0.75, k).astype(np.float32)
            high[f"frequency.{f}"] = own[f"frequency.{f}"] + np.float32(2**19)
            assert (high[f"frequency.{f}"] - np.float32(2**19) == own[f"frequency.{f}"]).all()
    come = events(20, 3, waves=WAVES)
    periodic = np.array(WAVES) > 0
    come.parts[:, periodic] = np.round(come.parts[:, periodic] * 64) / 64
    one, other = Encoder(loaded(chosen, own)), Encoder(loaded(chosen, high))
    as_of = int(come.time[-1])
    assert one.readout(streamed(one, come), as_of).tolist() == other.readout(streamed(other, come), as_of).tolist()


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "part"), [(9, 0.0), (-1, 0.0), (0, 0.5), (3, 1025.0), (3, -1025.0), (3, math.nan), (8, math.inf)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_no_tokenizer_gives_are_refused(kind: Kind, code: int, part: float) -> None:
    own, come = ENCODERS[kind], events(5, 6, waves=WAVES)
    come.codes[2, 1], come.parts[2, 1] = code, part
    state = own.start()
    said = r"\.codes\[2, 1\]: expected a code below 9 with a number within 1024.0, and 0 at code 0; got code "
    with pytest.raises(BadInput, match=r"^\$" + said):
        own.advance(state, *come)
    with pytest.raises(BadInput, match=r"^\$\.slices\[0\]" + said):
        own.encode_many(*come, np.array([0, 5]), np.array([2**62]))
    come.codes[2, 1], come.parts[2, 1] = SIZES[1] - 1, -SPREADS_MAX
    own.advance(state, *come)


def test_waves_are_in_the_configuration_only_where_there_are_some() -> None:
    chosen = config("gru", waves=WAVES)
    assert '"waves":[0,3,0,5,0]' in chosen.to_json()
    assert Config.from_json(chosen.to_json()) == chosen
    assert "waves" not in config("gru").to_json()
    assert (chosen.rows, config("gru").rows) == ((5, 7, 4, 11, 3), SIZES)
    assert (chosen.periodic, config("gru").periodic) == ((False, True, False, True, False), (False,) * 5)
    assert {name: shape for name, shape in shapes(chosen).items() if name.startswith("frequency")} == {
        "frequency.1": (3,), "frequency.3": (5,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("waves", "said"),
    [
        ([0, 3], r"\$\.waves: expected none, or one number for each of 5 fields, one above 0, got \[0, 3\]"),
        ([0, 0, 0, 0, 0], r"\$\.waves: expected none, or one number"),
        ([0, 3, 0, 257, 0], r"Expected `int` <= 256 - at `\$\.waves\[3\]`"),
        ([0, -1, 0, 1, 0], r"Expected `int` >= 0 - at `\$\.waves\[1\]`"),
        ("3", r"Expected `array`, got `str` - at `\$\.waves`"),
    ],
)
def test_a_wrong_configuration_is_refused(waves: Any, said: str) -> None:
    data = json.loads(config("gru", waves=WAVES).to_json()) | {"waves": waves}
    with pytest.raises(BadInput, match=said):
        Config.from_json(json.dumps(data))


def test_every_tensor_that_does_not_fit_is_named() -> None:
    chosen = config("gru", waves=WAVES)
    own = tensors(chosen)
    own["frequency.1"] = own["frequency.1"][:2]
    own["frequency.2"] = own["frequency.3"]
    own["frequency.3"] = np.full(5, 2 * FREQUENCY_MAX, np.float32)
    own["token.3"] = own["token.3"][:-1]
    with pytest.raises(BadInput) as error:
        dump(chosen, own)
    assert [str(one) for one in error.value.problems] == [
        "$['frequency.1']: expected float32 of shape (3,), got float32 of shape (2,)",
        "$['frequency.2']: expected no such tensor; did you mean 'frequency.3'?",
        "$['frequency.3']: expected frequencies of at most 1048576 turns a unit, got 2097152.0",
        "$['token.3']: expected float32 of shape (11, 11), got float32 of shape (10, 11)",
    ]


def test_an_encoder_is_of_one_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(_data())
    waves = waves_of(tokenizer.periodic, 4)
    other = config("gru", sizes=tokenizer.sizes)
    fitting = msgspec.structs.replace(other, waves=waves)
    content, wrong = (dump(one, tensors(one, heads={"a": 1})) for one in (fitting, other))
    held = Encoders(tmp_path).write(tokenizer, content, {"model": {"sequence": twin.NAME}})
    assert held.weights.config == fitting
    said = r"expected periodic fields \[1, 5, 9\], as the tokenizer has, got \[\]"
    with pytest.raises(IntegrityError, match=said):
        Encoders(tmp_path).write(tokenizer, wrong, {})
    weights = parse(content, hashlib.sha256(content).hexdigest())
    score = SequenceScore("score", twin.NAME, tokenizer, weights, ("a",), "REST")
    parts = score.parts(content)
    assert SequenceScore.load(parts).weights.sha256 == weights.sha256
    with pytest.raises(IntegrityError, match=said):
        SequenceScore.load(parts | {"encoder.safetensors": wrong})


@pytest.mark.parametrize("kind", KINDS)
def test_log_odds_are_torchs(kind: Kind) -> None:
    chosen = config(kind, 32, waves=WAVES, **({"tail": 256} if kind == "transformer" else {}))
    own, come = tensors(chosen, 1), events(300, 7, waves=WAVES)
    assert difference(chosen, own, own, come) < BOUND
    changed = own | {"frequency.3": own["frequency.3"] * np.float32(1.01)}
    assert difference(chosen, own, changed, come) > BOUND
