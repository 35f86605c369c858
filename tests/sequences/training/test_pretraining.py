"""Pretraining: slices and hard negatives by their definition, fields ahead, identifiers kept out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.sequences.training.small import PRETRAIN, QUICK, SIZES, source

from obligor.errors import BadInput
from obligor.sequences.memory import MemorySource
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.contrastive import contrastive_loss, random_slices
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.fields_ahead import FieldsAhead, masked_codes, with_next
from obligor.sequences.training.pretraining import VALUES_MAX, Objectives, Pretraining, identifying, slow_moving
from obligor.sequences.training.ragged import Ragged, Rows, ragged
from obligor.sequences.training.times_ahead import SPANS_DAYS, TimesAhead, kinds, waits
from obligor.sequences.training.trainer import train
from obligor.sequences.weights import Config

CPU = torch.device("cpu")


def _encoder(sizes: tuple[int, ...] = SIZES, **given: Any) -> SequenceEncoder:
    return SequenceEncoder(Config(kind="gru", width=8, hidden=16, sizes=sizes), seed=1, **given)


def _with_identifier(made: MemorySource) -> MemorySource:
    """The same sequences with a field more, which names its sequence."""
    questions = len(made.start)
    name = np.repeat(np.arange(questions) % 200 + 2, made.stop - made.start).astype(np.int32)
    codes = np.concatenate((made.codes, name[:, None]), axis=1)
    parts = np.concatenate((made.parts, np.zeros((len(codes), 1), np.float32)), axis=1)
    return MemorySource((*SIZES, 202), codes, parts, made.time, made.start, made.stop, made.as_of, tokens_max=1024)


def test_slices_lie_within_their_rows() -> None:
    batch = next(source(40, 1, events=(2, 60), tokens_max=10_000)[0].batches(0, 0))
    found, row = random_slices(batch, Chance(1, 2), 5, 10, 20, CPU)
    assert np.array_equal(row, np.repeat(np.arange(len(batch.length)), 5))
    whole, length = batch.length[row], found.rows.length
    assert np.all(length <= np.minimum(whole, 20))
    assert np.all(length >= np.minimum(np.maximum(whole // 3, 1), 10))
    assert len(set(length.tolist())) > 5
    for s, start in enumerate(found.rows.start):
        own = batch.time[row[s], : whole[s]]
        inside = found.time[start : start + length[s]]
        at = int(np.flatnonzero(own == inside[0])[0])
        assert np.array_equal(inside, own[at : at + length[s]])
        assert np.array_equal(found.codes[start : start + length[s]].numpy(), batch.codes[row[s], at : at + length[s]])
        assert found.as_of[s] == inside[-1]


def test_contrastive_loss_is_that_of_every_pair_written_out() -> None:
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    row = np.repeat([0, 1, 2], 3)
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    distance = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    terms = [distance[i, j] ** 2 for i in range(9) for j in range(i + 1, 9) if row[i] == row[j]]
    for i in range(9):
        others = sorted(distance[i, j] for j in range(9) if row[i] != row[j])
        terms += [max(0.0, 1.2 - d) ** 2 for d in others[:2]]
    found = contrastive_loss(vectors, row, margin=1.2, negatives=2)
    assert found.item() == pytest.approx(np.mean(terms), abs=1e-6)


def test_vectors_that_coincide_have_a_gradient() -> None:
    vectors = torch.ones(4, 3, requires_grad=True)
    contrastive_loss(vectors, np.array([0, 0, 1, 1]), margin=0.5, negatives=3).backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert bool(torch.isfinite(vectors.grad).all())


def test_in_half_precision_what_lies_close_together_is_pushed_apart() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.03], [1.0, 0.03]], requires_grad=True)
    whole = contrastive_loss(vectors, np.array([0, 0, 1, 1]), margin=0.5, negatives=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = contrastive_loss(vectors, np.array([0, 0, 1, 1]), margin=0.5, negatives=2)
    assert half.item() == whole.item()
    half.backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    assert bool(vectors.grad[:, 1].ne(0).all())


def test_fields_of_the_next_event_are_asked_where_they_are() -> None:
    rows = Rows(np.array([3, 0, 1, 2]), CPU)
    assert with_next(rows).tolist() == [0, 1, 4]
    ahead = FieldsAhead((4, 3), 2, (0, 1), torch.Generator().manual_seed(1))
    with torch.no_grad():
        ahead.weight.zero_()
    codes = torch.tensor([[1, 0], [2, 0], [3, 2]], dtype=torch.int32)
    expected = (np.log(4) + np.log(3)) / 2  # of the second field only the last event is asked
    assert ahead(torch.zeros(3, 2), codes, Chance(0, 0)).item() == pytest.approx(expected, abs=1e-6)
    assert ahead(torch.zeros(3, 2), torch.zeros_like(codes), Chance(0, 0)).item() == 0.0


def test_masked_fields_are_asked_and_no_others() -> None:
    codes = torch.full((500, 4), 3, dtype=torch.int32)
    given, parts, asked = masked_codes(codes, torch.ones(500, 4), 0.15, Chance(1, 1))
    assert torch.equal(given + asked, codes)
    assert torch.equal(parts > 0, given > 0)
    assert 0.1 < float((asked > 0).double().mean()) < 0.2


def test_waits_are_those_of_each_row_looked_through() -> None:
    made, _ = source(30, 1, events=(2, 12), tokens_max=10_000)
    tokens = ragged(next(made.batches(0, 0)), CPU)
    asked = kinds(SIZES, (0, 1))
    assert asked == (*((0, code) for code in range(1, 6)), *((1, code) for code in range(1, 7)))
    place = np.arange(0, len(tokens.time), 2)
    wait, seen = waits(tokens, place, asked)
    for i, at in enumerate(place.tolist()):
        row = int(np.searchsorted(tokens.rows.start, at, side="right")) - 1
        end = int(tokens.rows.start[row] + tokens.rows.length[row])
        assert seen[i] == tokens.as_of[row] - tokens.time[at]
        for k, (field, code) in enumerate(asked):
            coming = [j for j in range(at + 1, end) if tokens.codes[j, field] == code]
            assert wait[i, k] == (tokens.time[coming[0]] - tokens.time[at] if coming else np.inf)


def test_a_kind_that_is_known_to_come_or_not_costs_what_its_hazard_says() -> None:
    """Two rows of two events: a day later the second event comes, of kind 1 in one row and of kind 2 in the other."""
    day = 86_400_000_000
    codes = torch.tensor([[3], [1], [3], [2]], dtype=torch.int32)
    rows = Rows(np.array([2, 2]), CPU)
    tokens = Ragged(codes, torch.zeros(4, 1), np.array([0, day, 0, day]), rows, np.array([40 * day, 2 * day]))
    ahead = TimesAhead((4,), 2, (0,), torch.Generator().manual_seed(1))
    ahead(torch.zeros(4, 2), tokens, Chance(0, 0))  # it begins at the rates
    begun = ahead.bias.detach().clone().reshape(3, len(SPANS_DAYS))
    # Kind 1: at risk in the spans up to a day are all four events, of which one sees it come in the third span.
    assert torch.sigmoid(begun[0, 0]).item() == pytest.approx(0.5 / 5)
    assert torch.sigmoid(begun[0, 2]).item() == pytest.approx(1.5 / 5)
    # Beyond it one event alone was watched for 30 days without it.
    assert torch.sigmoid(begun[0, 6]).item() == pytest.approx(0.5 / 2)
    assert ahead(torch.zeros(4, 2), tokens, Chance(0, 0)).item() == pytest.approx(1.0)
    with torch.no_grad():
        ahead.bias.zero_()
    shares = [_loss(torch.zeros_like(begun[k]), tokens, k) / _loss(begun[k], tokens, k) for k in (0, 1)]
    assert ahead(torch.zeros(4, 2), tokens, Chance(0, 0)).item() == pytest.approx(np.mean(shares), rel=1e-5)


def test_in_half_precision_what_always_comes_is_counted_as_exactly() -> None:
    """A thousand events, each followed by the next after two hours: of all that were asked all but the last saw it."""
    count, hour = 1000, 3_600_000_000
    time = np.arange(count) * 2 * hour
    tokens = Ragged(torch.ones(count, 1, dtype=torch.int32), torch.zeros(count, 1), time, Rows(np.array([count]), CPU),
                    time[-1:] + 30 * hour)  # fmt: skip
    found = []
    for kind in (torch.float32, torch.bfloat16):
        ahead = TimesAhead((2,), 2, (0,), torch.Generator().manual_seed(1))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind is torch.bfloat16):
            loss = ahead(torch.zeros(count, 2, dtype=kind), tokens, Chance(0, 0))
        found.append((loss.item(), ahead.bias.detach()))
    (whole, level), (half, begun) = found
    assert torch.equal(begun, level)
    assert half == pytest.approx(whole, rel=1e-2)


def _loss(log_odds: torch.Tensor, tokens: Ragged, kind: int) -> float:
    """What a hazard costs, span by span."""
    total = 0.0
    wait, seen = waits(tokens, np.arange(4), ((0, kind + 1),))
    for i in range(4):
        begin = 0.0
        for odds, end in zip(log_odds.tolist(), np.array(SPANS_DAYS) * 86_400e6, strict=True):
            came = wait[i, 0] <= end
            if wait[i, 0] > begin and (came or seen[i] >= end):
                total += float(np.log1p(np.exp(-odds if came else odds)))
            begin = end
    return total


def test_fields_of_very_many_values_are_not_foretold() -> None:
    made = _with_identifier(source(40, 1)[0])
    sizes = (*SIZES, VALUES_MAX + 1)
    task = Pretraining(_encoder(sizes), Objectives(1.0, 1.0, 1.0, 1.0), replace(made, sizes=sizes), seed=1)
    assert task.next_event is not None
    assert task.masked is not None
    assert task.next_event.kept == task.masked.kept == (0, 1, 2)


@pytest.mark.parametrize(
    "weights",
    [(1.0, 0.5, 0.5, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)],
)
def test_every_objective_falls(weights: tuple[float, float, float, float]) -> None:
    made, _ = source(400, 1, tokens_max=2048)
    wanted = Objectives(*weights, slice_min=3, slice_max=12)
    held = np.arange(400) % 5 == 0
    task = Pretraining(_encoder(), wanted, made, seed=1, held=held)
    first = task.score()
    result = train(task, made, replace(QUICK, epochs=6))
    assert first is not None
    assert result.best is not None
    assert result.best < first * 0.97
    assert task.score() == pytest.approx(result.best, abs=1e-6)  # it ends with the best weights


def test_next_event_sees_a_carried_state() -> None:
    """Chunks of a timeline teach what the whole teaches, but for the pairs across their borders."""
    made, _ = source(10, 1, events=(20, 21), tokens_max=10_000)
    batch = next(made.batches(0, 0))
    whole = Pretraining(_encoder(), Objectives(0.0, 1.0, 0.0, 0.0), made, seed=1)
    chunked = Pretraining(_encoder(chunk_events=7), Objectives(0.0, 1.0, 0.0, 0.0), made, seed=1)
    losses = [task.loss(batch, Chance(0, 0)) for task in (whole, chunked)]
    assert losses[0] is not None
    assert losses[1] is not None
    assert float(losses[0].total.detach()) == pytest.approx(float(losses[1].total.detach()), abs=1e-6)


def test_a_field_that_names_its_row_is_found() -> None:
    made, _ = source(300, 1)
    named = _with_identifier(made)
    assert slow_moving(made.batches(0, 0), 3) == ()
    assert slow_moving(named.batches(0, 0), 4) == (3,)
    assert identifying(replace(named, slow=(False, True, False, False))) == (1, 3)


def test_what_an_encoder_is_blind_to_says_nothing() -> None:
    named = _with_identifier(source(300, 1)[0])
    encoder = _encoder(named.sizes, blind=(3,))
    wanted = replace(PRETRAIN, masked=0.5, times_ahead=1.0)
    train(Pretraining(encoder, wanted, named, seed=1), named, QUICK)
    assert not encoder.token.tables()[3].any()  # so serving, which adds it, adds nothing
    tokens = ragged(next(named.batches(0, 0)), CPU)
    with torch.no_grad():
        other = tokens._replace(codes=tokens.codes.clone())
        other.codes[:, 3] = 7
        assert torch.equal(encoder(tokens), encoder(other))


def test_contrast_by_an_identifier_alone_learns_nothing_else() -> None:
    """The control: let in, the identifier is most of what the vectors of two slices have in common."""
    named = _with_identifier(source(300, 1)[0])
    wanted = Objectives(contrastive=1.0, times_ahead=0.0, slice_min=3, slice_max=12)
    scores: list[float] = []
    for blind in ((), (3,)):
        task = Pretraining(_encoder(named.sizes, blind=blind), wanted, named, seed=1, held=np.arange(300) < 60)
        result = train(task, named, QUICK)
        scores.append(float(result.best or np.nan))
    assert scores[0] < 0.8 * scores[1]


def test_objectives_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="expected weights of at least 0, not all 0"):
        Objectives(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(BadInput, match=r"\$\.blind: expected a field"):
        _encoder(blind=(0, 1, 2))
