"""Encoders against their equations written out event by event; chunks, padding and empty rows change nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.sequences.training.small import SIZES, source
from torch import Tensor, nn

from obligor.errors import BadInput
from obligor.sequences.batches import Batch, Branched
from obligor.sequences.training.embedding import TokenEmbedding
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.export import exported_weights
from obligor.sequences.training.gru import GRU
from obligor.sequences.training.linear_attention import LinearAttention
from obligor.sequences.training.ragged import Rows, joined, ragged
from obligor.sequences.training.readout import Pool, Readout
from obligor.sequences.training.transformer import turns
from obligor.sequences.weights import Config, Kind

KINDS: tuple[Kind, ...] = ("gru", "linear_attention", "transformer")
CPU = torch.device("cpu")
HIDDEN = 16
DAY_US = 86_400_000_000


def _encoder(kind: Kind, **given: Any) -> SequenceEncoder:
    deep = kind == "transformer"
    config = Config(
        kind=kind, width=8, hidden=HIDDEN, sizes=SIZES, layers=2 if deep else 1, heads=1 if kind == "gru" else 2,
        tail=64 if deep else 0, fading_days=(1, 40),
    )  # fmt: skip
    made = SequenceEncoder(config, seed=5, **given)
    with torch.no_grad():
        made.readout.empty.add_(torch.arange(made.size) / 100)
    return made


def _batch(events: tuple[int, int] = (1, 40), rows: int = 12) -> Batch:
    return next(source(rows, 4, events=(max(events[0], 2), events[1]), tokens_max=100_000)[0].batches(0, 0))


def _emptied(batch: Batch, row: int) -> Batch:
    length, codes, parts = batch.length.copy(), batch.codes.copy(), batch.parts.copy()
    length[row], codes[row], parts[row] = 0, 0, 0
    return batch._replace(length=length, codes=codes, parts=parts)


def _token(
    w: dict[str, NDArray[np.float64]], codes: NDArray[np.int32], parts: NDArray[np.float32]
) -> NDArray[np.float64]:
    x: NDArray[np.float64] = np.zeros(w["token.0"].shape[1])
    for f, (code, part) in enumerate(zip(codes, parts, strict=True)):
        x += (1 - part) * w[f"token.{f}"][code]
        if part:
            x += part * w[f"token.{f}"][code + 1]
    return x


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def _gru(w: dict[str, NDArray[np.float64]], x: NDArray[np.float64], time: NDArray[np.int64]) -> NDArray[np.float64]:
    h, found = np.zeros(HIDDEN), []
    for token in x:
        a = w["gru.weight_ih"] @ token + w["gru.bias_ih"]
        b = w["gru.weight_hh"] @ h + w["gru.bias_hh"]
        r, z = _sigmoid(a[:HIDDEN] + b[:HIDDEN]), _sigmoid(a[HIDDEN : 2 * HIDDEN] + b[HIDDEN : 2 * HIDDEN])
        n = np.tanh(a[2 * HIDDEN :] + r * b[2 * HIDDEN :])
        h = (1 - z) * n + z * h
        found.append(h)
    return np.array(found)


def _linear_attention(
    w: dict[str, NDArray[np.float64]], x: NDArray[np.float64], time: NDArray[np.int64]
) -> NDArray[np.float64]:
    size = HIDDEN // 2
    states, found = np.zeros((2, size, size)), []
    for token in x:
        q, k, v = (w[f"la.{name}"] @ token for name in ("query", "key", "value"))
        g = np.sqrt(np.sqrt(np.sqrt(np.sqrt(_sigmoid(w["la.decay"] @ token + w["la.decay_bias"])))))
        o = np.zeros(HIDDEN)
        for head in range(2):
            s = slice(head * size, (head + 1) * size)
            states[head] = g[s, None] * states[head] + np.outer(k[s], v[s])
            read = (q[s] / np.sqrt(size)) @ states[head]
            o[s] = read / np.sqrt((read**2).mean() + 1e-5) * w["la.norm"][s]
        gate = w["la.gate"] @ token
        found.append(w["la.out"] @ (o * gate * _sigmoid(gate)))
    return np.array(found)


def _rms(y: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(y / np.sqrt((y**2).mean(axis=1, keepdims=True) + 1e-5) * weight)


def _transformer(
    w: dict[str, NDArray[np.float64]], x: NDArray[np.float64], time: NDArray[np.int64]
) -> NDArray[np.float64]:
    size, pairs = HIDDEN // 2, HIDDEN // 4
    periods = [1 / 12 * (730 * 12) ** (j / (pairs - 1)) for j in range(pairs)]
    angle = np.array([[(t - time[-1]) / 86400e6 * 2 * np.pi / p for p in periods] for t in time])

    def turned(v: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.empty_like(v)
        out[:, 0::2] = v[:, 0::2] * np.cos(angle) - v[:, 1::2] * np.sin(angle)
        out[:, 1::2] = v[:, 0::2] * np.sin(angle) + v[:, 1::2] * np.cos(angle)
        return out

    y = x @ w["in"].T
    for i in range(2):
        qkv = _rms(y, w[f"layer.{i}.norm1"]) @ w[f"layer.{i}.qkv"].T
        read = np.zeros_like(y)
        for head in range(2):
            q, k, v = (qkv[:, part * HIDDEN + head * size : part * HIDDEN + (head + 1) * size] for part in range(3))
            scores = turned(q) @ turned(k).T / np.sqrt(size)
            scores[np.triu_indices(len(x), 1)] = -np.inf
            weight = np.exp(scores - scores.max(axis=1, keepdims=True))
            read[:, head * size : (head + 1) * size] = weight / weight.sum(axis=1, keepdims=True) @ v
        y = y + read @ w[f"layer.{i}.out"].T
        up = _rms(y, w[f"layer.{i}.norm2"]) @ w[f"layer.{i}.up"].T
        y = y + (up * _sigmoid(up)) @ w[f"layer.{i}.down"].T
    return _rms(y, w["final_norm"])


def _expected(kind: Kind, encoder: SequenceEncoder, batch: Batch) -> NDArray[np.float64]:
    """The readouts by the equations, one row and one event at a time."""
    w = {name: value.astype(np.float64) for name, value in exported_weights(encoder).items()}
    body = {"gru": _gru, "linear_attention": _linear_attention, "transformer": _transformer}[kind]
    found = []
    for row, n in enumerate(batch.length):
        if n == 0:
            found.append(w["readout.empty"])
            continue
        first = max(0, n - encoder.config.tail) if kind == "transformer" else 0
        x = np.array([_token(w, batch.codes[row, t], batch.parts[row, t]) for t in range(first, n)])
        y = body(w, x, batch.time[row, first:n])
        age = np.log2(1 + (batch.as_of[row] - batch.time[row, n - 1]) / 1e6) / 16
        std = np.sqrt(np.maximum((y**2).mean(axis=0) - y.mean(axis=0) ** 2, 0) + 1e-6)
        ages = [age, np.log2(1 + len(y)) / 16]
        days = (batch.as_of[row] - batch.time[row, first:n]) / DAY_US
        faded = [np.exp(-days / span) @ y for span in encoder.config.fading_days]
        found.append(np.concatenate([y[-1], y.mean(axis=0), std, y.min(axis=0), y.max(axis=0), *faded, ages]))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_readouts_are_those_of_the_equations(kind: Kind) -> None:
    encoder, batch = _encoder(kind), _emptied(_batch((2, 100)), 3)
    assert batch.length.max() > 64
    with torch.no_grad():
        found = encoder(ragged(batch, CPU)).numpy()
    assert np.abs(found - _expected(kind, encoder, batch)).max() < 2e-5


@pytest.mark.parametrize("kind", ["gru", "linear_attention"])
def test_state_that_is_carried_through_chunks_reads_as_the_whole_does(kind: Kind) -> None:
    whole, chunked, batch = _encoder(kind), _encoder(kind, chunk_events=7), _emptied(_batch(), 0)
    with torch.no_grad():
        difference = whole(ragged(batch, CPU)) - chunked(ragged(batch, CPU))
        assert float(difference.abs().max()) < 1e-5
        dropped = whole(ragged(batch, CPU).tail(7)) - whole(ragged(batch, CPU))  # control: no state was handed on
    assert float(dropped[:, :HIDDEN].abs().max()) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: Kind) -> None:
    encoder, batch = _encoder(kind), _batch()
    wider = np.pad(batch.codes, ((0, 0), (0, 30), (0, 0)), constant_values=3)
    parts, time = (
        np.pad(batch.parts, ((0, 0), (0, 30), (0, 0)), constant_values=0.5),
        np.pad(batch.time, ((0, 0), (0, 30))),
    )
    with torch.no_grad():
        alone = torch.cat([encoder(ragged(_only(batch, row), CPU)) for row in range(len(batch.length))])
        found = encoder(ragged(batch._replace(codes=wider, parts=parts, time=time), CPU))
        assert torch.equal(found, encoder(ragged(batch, CPU)))
        assert float((found - alone).abs().max()) < 1e-5


def _only(batch: Batch, row: int) -> Batch:
    return batch.take(np.arange(len(batch.length)) == row)


def test_steps_have_the_gradient_of_torch_s_own() -> None:
    encoder, tokens = _encoder("gru"), ragged(_emptied(_batch(), 2), CPU)
    body, rows = encoder.body, tokens.rows
    x = encoder.token(tokens).detach().requires_grad_()
    begin = torch.randn(len(rows.length), HIDDEN, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y, end = body(x, rows, begin)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((y * weight).sum() + (end**2).sum(), [x, begin, *body.parameters()])

    def theirs() -> Tensor:
        total = torch.zeros(())
        twin = dict(body.named_parameters())
        flat: list[Tensor] = [twin[f"{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        for row, (start, n) in enumerate(zip(rows.start, rows.length, strict=True)):
            own = slice(start, start + n)
            if n:
                read, last = torch.gru(x[own][None], begin[None, row : row + 1], flat, True, 1, 0.0, True, False, True)
                total = total + (read[0] * weight[own]).sum() + (last**2).sum()
            else:
                total = total + (begin[row] ** 2).sum()
        return total

    for mine, other in zip(ours, torch.autograd.grad(theirs(), [x, begin, *body.parameters()]), strict=True):
        assert float((mine - other).abs().max()) <= 1e-5 * float(other.abs().max())


def test_the_gradient_ends_where_older_events_begin() -> None:
    batch = _batch((60, 61), rows=4)
    whole, cut = _encoder("gru", chunk_events=20), _encoder("gru", chunk_events=20, gradient_events=20)
    for encoder in (whole, cut):
        encoder(ragged(batch, CPU)).sum().backward()
    used = [encoder.token.table.grad for encoder in (whole, cut)]
    assert used[0] is not None
    assert used[1] is not None
    late = np.zeros(sum(SIZES), bool)
    for f, first in enumerate(np.cumsum([0, *SIZES[:-1]])):
        codes = batch.codes[:, 40:, f]
        late[first + codes] = True
        late[(first + codes + 1)[batch.parts[:, 40:, f] > 0]] = True
    assert not used[1][~torch.from_numpy(late)].any()
    assert float((used[0] - used[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_an_extreme_gap_and_a_very_long_row_stay_finite(kind: Kind) -> None:
    encoder = _encoder(kind)
    batch = _batch((3000, 3001), rows=1)
    time = batch.time + np.arange(3000) * 10**13  # a thousand years
    with torch.no_grad():
        for parameter in encoder.body.parameters():
            parameter.mul_(5)
    found = encoder(ragged(batch._replace(time=time, as_of=time[:, -1]), CPU))
    found.sum().backward()
    assert bool(torch.isfinite(found).all())
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in encoder.parameters())


def test_tokens_lie_between_two_rows_of_a_table() -> None:
    token = TokenEmbedding((3, 4), 2, torch.Generator().manual_seed(1))
    batch = _batch(rows=1)
    codes, parts = np.array([[[1, 2], [2, 3]]], np.int32), np.array([[[0, 0.25], [0, 0]]], np.float32)
    one = batch._replace(codes=codes, parts=parts, time=batch.time[:, :2], length=np.array([2], np.int32))
    first, second = (table.numpy() for table in token.tables())
    expected = [first[1] + 0.75 * second[2] + 0.25 * second[3], first[2] + second[3]]
    with torch.no_grad():
        assert np.abs(token(ragged(one, CPU)).numpy() - expected).max() < 1e-6


def test_far_numbers_have_gates_at_their_bounds_and_no_number_stays_none() -> None:
    body = GRU(1, 3, torch.Generator().manual_seed(1))
    with torch.no_grad():
        body.weight_ih.fill_(1)
    x = torch.tensor([[1e4], [-1e4], [200.0], [math.nan], [0.0]])
    y = body(x, Rows(np.ones(5, np.int64), CPU), torch.full((5, 3), 0.5))[0]
    expected = nn.GRU(1, 3)
    expected.load_state_dict({f"{name}_l0": value for name, value in body.state_dict().items()})
    theirs = expected(x[None], torch.full((1, 5, 3), 0.5))[0][0]
    assert torch.allclose(y, theirs, atol=1e-6, equal_nan=True)
    assert y.isnan().all(dim=1).tolist() == [False, False, False, True, False]


def test_a_row_without_new_events_keeps_its_state() -> None:
    rows = Rows(np.array([0, 3, 0, 20]), CPU)
    generator = torch.Generator().manual_seed(1)
    bodies: list[GRU | LinearAttention] = [GRU(4, 8, generator), LinearAttention(4, 8, 2, generator)]
    for body in bodies:
        before = torch.randn(body.zero(4, torch.zeros(())).shape, generator=generator)
        _, after = body(torch.randn(23, 4, generator=generator), rows, before)
        assert torch.equal(after[[0, 2]], before[[0, 2]])
        assert not torch.equal(after[[1, 3]], before[[1, 3]])


def test_what_is_kept_in_two_parts_is_what_is_kept_of_the_whole() -> None:
    y = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    time = np.array([0, 1, 5, 30, 7, 8, 40]) * DAY_US
    zero = Pool.zero(2, 3, CPU, (2, 9))
    whole = zero.update(y, Rows(np.array([4, 3]), CPU), time)
    first, second = [0, 1, 2, 4], [3, 5, 6]
    parts = zero.update(y[first], Rows(np.array([3, 1]), CPU), time[first])
    parts = parts.update(y[second], Rows(np.array([1, 2]), CPU), time[second])
    for one, other in zip(whole[:6], parts[:6], strict=True):
        assert float((one - other).abs().max()) < 1e-6
    assert np.array_equal(whole.events, parts.events)
    assert np.array_equal(whole.latest, parts.latest)


def test_sums_fade_by_their_span_as_of_the_question() -> None:
    y = torch.tensor([[1.0], [2.0], [4.0]])
    time = np.array([0, 3, 10]) * DAY_US
    pool = Pool.zero(1, 1, CPU, (5, 20)).update(y, Rows(np.array([3]), CPU), time)
    readout = Readout(Config(kind="gru", width=1, hidden=1, sizes=(2,), fading_days=(5, 20)))
    found = readout(pool, np.array([6 * DAY_US]))[0, 5:7].tolist()
    assert found == pytest.approx([sum(v * math.exp(-a / n) for v, a in ((1, 16), (2, 13), (4, 6))) for n in (5, 20)])


def test_turns_of_years_keep_their_digits() -> None:
    """The quickest pair turns once in two hours: 70 years on, an hour before the last is half a turn."""
    hour = 3_600_000_000
    time = np.array([0, 70 * 8766 * hour, (70 * 8766 + 1) * hour])
    angle = turns(time, Rows(np.array([3]), CPU), 8)[:, 0]
    assert angle == pytest.approx([np.pi, np.pi, 0.0], abs=1e-6)


def test_a_configuration_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\$\.heads: expected 2 x heads to divide hidden 20, got 4"):
        SequenceEncoder(Config(kind="transformer", width=8, hidden=20, sizes=SIZES, heads=4, tail=9), seed=1)


def test_readout_of_nothing_is_learnt_and_others_leave_it_alone() -> None:
    encoder, batch = _encoder("gru"), _batch()
    encoder(ragged(batch, CPU)).sum().backward()
    assert encoder.readout.empty.grad is not None
    assert not encoder.readout.empty.grad.any()
    nn.Module.zero_grad(encoder)
    encoder(ragged(_emptied(batch, 1), CPU)).sum().backward()
    assert torch.equal(encoder.readout.empty.grad, torch.ones(encoder.size))


def _branched(seed: int, sizes: tuple[int, ...]) -> Branched:
    """Three trunks, one of them without events, with questions that branch off at any place, some at none."""
    chance = np.random.default_rng(seed)

    def drawn(lengths: list[int], begins: list[int]) -> Batch:
        b, longest = len(lengths), max(lengths)
        codes = np.stack([chance.integers(0, size - 1, (b, longest)) for size in sizes], 2).astype(np.int32)
        parts = np.where(chance.random(codes.shape) < 0.5, chance.random(codes.shape), 0).astype(np.float32)
        time = np.array(begins)[:, None] + np.sort(chance.integers(0, 10**12, (b, longest)), axis=1)
        ends = [int(one[max(0, n - 1)]) for one, n in zip(time, lengths, strict=True)]
        as_of = np.array(ends) + chance.integers(0, 10**12, b)
        return Batch(codes, parts, time, np.array(lengths, np.int32), np.arange(b), as_of)

    trunk = drawn([40, 0, 9], [10**15] * 3)
    row, at = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 7, 7, 40, 0, 0, 9])
    return Branched(trunk, row, at, drawn([1, 3, 1, 2, 4, 0, 0], [10**15 + 2 * 10**12] * 7))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_events", [5, 512])
def test_branches_of_a_trunk_read_as_each_question_alone(kind: Kind, chunk_events: int) -> None:
    encoder = _encoder(kind, chunk_events=chunk_events)
    batch = _branched(4, encoder.config.sizes)
    with torch.no_grad():
        found = encoder.readouts(batch)
        alone = torch.cat([encoder(joined(batch.take(batch.question == q), CPU)) for q in range(7)])
        cut = np.minimum(batch.at, 6)
        shorter = batch.trunk._replace(length=np.array([6, 0, 6], np.int32))
        other = encoder.readouts(batch._replace(at=cut, trunk=shorter))  # control: another place
        assert float((found - alone).abs().max()) < 1e-5
        assert float((other - found)[[1, 2, 3, 6], :HIDDEN].abs().max()) > 1e-3
        kept = batch.question % 2 == 1
        assert float((encoder.readouts(batch.take(kept)) - found[torch.from_numpy(kept)]).abs().max()) < 1e-5


def test_branches_have_the_gradient_of_their_questions() -> None:
    batch = _branched(5, _encoder("gru").config.sizes)
    gradients = []
    for branched in (True, False):
        encoder = _encoder("gru")
        found = encoder.readouts(batch) if branched else encoder(joined(batch, CPU))
        found.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    assert float((gradients[0] - gradients[1]).abs().max()) < 1e-4 * float(gradients[1].abs().max())


def test_fresh_units_forget_over_spans_up_to_the_memory() -> None:
    events = 64
    body = GRU(4, 256, torch.Generator().manual_seed(1), events)
    with torch.no_grad():
        for weight in (body.weight_ih, body.weight_hh, body.bias_hh):
            weight.zero_()
        body.bias_ih[512:] = 0  # so a unit keeps a share z of itself at each event, and adds nothing
        kept = body(torch.zeros(5, 4), Rows(np.array([5]), CPU), torch.ones(1, 256))[1][0].numpy() ** (1 / 5)
    spans = 1 / (1 - kept)  # events
    assert spans.min() + 1e-3 >= 2
    assert spans.max() <= events + 1e-3
    assert np.quantile(spans, [0.25, 0.5, 0.75]) == pytest.approx([17.5, 33, 48.5], abs=5)
