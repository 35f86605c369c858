"""Dividing a score: coalitions against tokens taken one by one, Shapley values against all orders, planted culprits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sequences import twin
from tests.sequences.examples import DAY, KINDS, START, Tensors, config, loaded, tensors

from obligor.features.kernels.integers import NULL
from obligor.features.narrowing import sequence_alone
from obligor.sequences.coalitions import shapley
from obligor.sequences.division import Division, SequenceView
from obligor.sequences.score import EventGroup, SequenceScore
from obligor.sequences.tokens import Tokenizer, Tokens
from obligor.sequences.weights import Kind

PLAN = twin.plan()
TOKENIZER = Tokenizer.load(twin.tokenizer_data(sequence_alone(PLAN, twin.NAME).hash))
OTHER, PAID, SOLD, PAID_BY_APP = 1, 2, 3, 4  # codes of types; the tokenizer does not know sales by a referrer
GROUPS = {"BY_USSD": ["repayment.channel=ussd"], "PAID": ["repayment"], "SOLD": ["sale"]}
CHANNEL = TOKENIZER.names.index("channel")
USSD = 2


def score_of(
    own: Tensors, kind: Kind = "gru", groups: dict[str, list[str]] | None = None, hidden: int = 8
) -> SequenceScore:
    """Return a score with two heads."""
    weights = loaded(config(kind, hidden, sizes=TOKENIZER.sizes), own)
    named = tuple(EventGroup(reason=r, events=tuple(e)) for r, e in (GROUPS if groups is None else groups).items())
    return SequenceScore("history_score", twin.NAME, TOKENIZER, weights, ("a", "b"), "HISTORY", named)


def random_score(kind: Kind, groups: dict[str, list[str]] | None = None, seed: int = 1) -> SequenceScore:
    """Return a score of random weights."""
    chosen = config(kind, 8, sizes=TOKENIZER.sizes)
    return score_of(tensors(chosen, seed, {"a": 1, "b": 1}), kind, groups)


def sequence(n: int, seed: int, types: Sequence[int] = (PAID, SOLD, PAID_BY_APP, OTHER)) -> list[twin.Token]:
    """Return n events and an application, at random, with the gaps of a sequence."""
    chance = np.random.default_rng(seed)
    times = START + np.cumsum((np.exp(chance.normal(0.0, 2.0, n + 1)) * DAY).astype(np.int64))
    codes = [chance.integers(0, size - 1, n + 1) for size in TOKENIZER.sizes]
    codes[0], codes[CHANNEL] = chance.choice(types, n + 1), chance.choice([0, 1, USSD], n + 1)
    codes[0][-1], codes[CHANNEL][-1] = OTHER, 0  # so that the application is like no group's events
    drawn = np.stack(codes, axis=1)
    parts = np.where(chance.random(drawn.shape) < 0.4, chance.integers(0, 64, drawn.shape) / 64, 0.0)
    parts[:, 0] = parts[:, CHANNEL] = 0.0
    rows = list(zip(times.tolist(), map(tuple, drawn.tolist()), map(tuple, parts.tolist()), strict=True))
    return with_gaps(rows, None)


def with_gaps(tokens: Sequence[twin.Token], previous: int | None) -> list[twin.Token]:
    """Return tokens whose gaps are those of the events that are there."""
    found = []
    for time, codes, parts in tokens:
        code, part = twin.gap_token(TOKENIZER.data, None if previous is None else time - previous)
        found.append((time, (codes[0], code, *codes[2:]), (parts[0], part, *parts[2:])))
        previous = time
    return found


def arrays(tokens: Sequence[twin.Token]) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """Return codes, parts and times."""
    shape = (len(tokens), len(TOKENIZER.sizes))
    codes = np.array([one[1] for one in tokens], np.int32).reshape(shape)
    parts = np.array([one[2] for one in tokens], np.float32).reshape(shape)
    return codes, parts, np.array([one[0] for one in tokens], np.int64)


def streamed(score: SequenceScore, tokens: Sequence[twin.Token]) -> float:
    """Return the score of events, the application last, one by one."""
    state = score.encoder.start()
    for one in tokens:
        score.encoder.advance(state, *arrays([one]))
    return score.of(score.encoder.readout(state, tokens[-1][0]))


def view_of(score: SequenceScore, tokens: Sequence[twin.Token], tail: int) -> SequenceView:
    """Return what is divided of a sequence: its last `tail` events, and the application."""
    *events, application = tokens
    older, newest = events[: max(0, len(events) - tail)], events[max(0, len(events) - tail) :]
    state = score.encoder.start()
    score.encoder.advance(state, *arrays(older))
    codes, parts, time = arrays(newest)
    own = arrays([application])
    return SequenceView(
        state, older[-1][0] if older else NULL, Tokens(codes, parts), time, Tokens(own[0], own[1]), application[0]
    )


def group_of(token: twin.Token) -> str | None:
    """Return the group of GROUPS that an event is in, by its meaning."""
    kind, channel = token[1][0], token[1][CHANNEL]
    if kind in (PAID, PAID_BY_APP):
        return "BY_USSD" if channel == USSD else "PAID"
    return "SOLD" if kind == SOLD else None


def without(tokens: Sequence[twin.Token], tail: int, absent: set[str | None]) -> list[twin.Token]:
    """Return the sequence as it is where some groups' newest events did not happen."""
    *events, application = tokens
    older = events[: max(0, len(events) - tail)]
    kept = [one for one in events[len(older) :] if group_of(one) not in absent]
    return [*older, *with_gaps([*kept, application], older[-1][0] if older else None)]


@pytest.mark.parametrize("kind", KINDS)
def test_coalitions_are_sequences_in_which_events_did_not_happen(kind: Kind) -> None:
    score = random_score(kind)
    division = Division(score, PLAN)
    for seed, (n, tail) in enumerate([(0, 9), (1, 9), (6, 9), (9, 9), (11, 9), (40, 9), (30, 25)]):
        tokens = sequence(n, seed)
        found = division.coalitions(view_of(score, tokens, tail))
        there = {group_of(one) for one in tokens[:-1][-tail:]} - {None}
        assert found.present == tuple(one for one in GROUPS if one in there)
        assert len(found.scores) == 2 ** len(found.present)
        for place, own in enumerate(found.scores):
            absent = {one for i, one in enumerate(found.present) if not place >> i & 1}
            assert float(own) == streamed(score, without(tokens, tail, set(absent)))
        assert float(found.scores[-1]) == streamed(score, tokens)


def test_a_sequence_with_a_limit_goes_on_from_the_row_that_it_left_out() -> None:
    score, tokens = random_score("gru"), sequence(20, 3, (PAID, SOLD))
    newest, previous = tokens[8:], tokens[7][0]
    view = view_of(score, newest, 12)._replace(previous=previous)
    found = Division(score, PLAN).coalitions(view)
    assert found.present == tuple(GROUPS)
    for place, own in enumerate(found.scores):
        kept = [one for one in newest[:-1] if place >> list(GROUPS).index(str(group_of(one))) & 1]
        assert float(own) == streamed(score, with_gaps([*kept, newest[-1]], previous))
    wrong = Division(score, PLAN).coalitions(view._replace(previous=previous - DAY))
    assert not np.array_equal(found.scores, wrong.scores)


def by_orders(worth: NDArray[np.float64]) -> list[float]:
    """Return each player's average contribution over all orders in which players come."""
    count = len(worth).bit_length() - 1
    orders = list(itertools.permutations(range(count)))
    values = [0.0] * count
    for order in orders:
        there = 0
        for player in order:
            values[player] += (worth[there | 1 << player] - worth[there]) / len(orders)
            there |= 1 << player
    return values


@pytest.mark.parametrize("count", range(6))
def test_values_are_the_average_over_all_orders(count: int) -> None:
    worth = np.random.default_rng(count).normal(size=1 << count)
    found = shapley(worth)
    assert found == pytest.approx(by_orders(worth), rel=0, abs=1e-12)
    assert math.fsum(found) == pytest.approx(worth[-1] - worth[0], rel=0, abs=1e-12)
    if count > 1:
        planted = worth.copy()
        planted[1] += 1e-6
        assert by_orders(planted) != pytest.approx(found, rel=0, abs=1e-12)


MEAN, MOST = 2, 8  # where a readout of two hidden numbers has these of the first


def planted(effects: dict[tuple[int, int], float], pooled: int = MEAN) -> Tensors:
    """Return weights whose y is what rows (field, code) of the tables say, and whose score rises with its pooling."""
    chosen = config("gru", 2, sizes=TOKENIZER.sizes)
    own = {name: np.zeros_like(tensor) for name, tensor in tensors(chosen, 0, {"a": 1, "b": 1}).items()}
    for (field, code), effect in effects.items():
        own[f"token.{field}"][code, 0] = effect
    own["gru.weight_ih"][4, 0] = 1.0  # n of the first hidden number
    own["gru.bias_ih"][2:4] = -40.0  # z is 0: each event's y is its own
    for head in ("a", "b"):
        own[f"head.{head}.norm_scale"][:] = 1.0
        own[f"head.{head}.hidden"][0, pooled] = 50.0
        own[f"head.{head}.out"][0, 0] = 0.1
        own[f"head.{head}.out_bias"][0] = -2.0
    return own


def parts_of(score: SequenceScore, tokens: Sequence[twin.Token], tail: int = 64) -> dict[str, float]:
    """Return each group's part of the log-odds."""
    found = Division(score, PLAN).coalitions(view_of(score, tokens, tail))
    return dict(zip(found.present, shapley(found.scores), strict=True))


@pytest.mark.parametrize(
    ("reason", "effects"),
    [
        ("SOLD", {(0, SOLD): 0.8}),
        ("BY_USSD", {(CHANNEL, USSD): 0.4, (0, PAID): 0.4, (0, PAID_BY_APP): 0.4, (0, SOLD): -0.4, (0, OTHER): -0.4}),
    ],
)
def test_a_planted_culprit_has_all_of_the_score(reason: str, effects: dict[tuple[int, int], float]) -> None:
    tokens = sequence(50, 8)
    score = score_of(planted(effects, MOST), hidden=2)
    parts = parts_of(score, tokens)
    bare = streamed(score, without(tokens, 64, set(GROUPS)))
    assert math.fsum(parts.values()) == pytest.approx(streamed(score, tokens) - bare, rel=0, abs=1e-12)
    assert set(parts) == set(GROUPS)
    assert max(parts, key=lambda one: parts[one]) == reason
    assert parts[reason] > 1.0
    assert reason != "SOLD" or parts == {"BY_USSD": 0.0, "PAID": 0.0, "SOLD": parts["SOLD"]}


def test_groups_that_do_the_same_have_equal_parts() -> None:
    tokens = [one for one in sequence(60, 9, (PAID, SOLD, OTHER)) if group_of(one) != "BY_USSD"]
    same = {name: [one for one in tokens[:-1] if group_of(one) == name][:10] for name in ("PAID", "SOLD")}
    assert len(same["PAID"]) == len(same["SOLD"]) == 10
    kept = [one for one in tokens if one in same["PAID"] or one in same["SOLD"] or group_of(one) is None]
    kept = with_gaps([*kept, tokens[-1]] if tokens[-1] not in kept else kept, None)
    parts = parts_of(score_of(planted({(0, PAID): 0.6, (0, SOLD): 0.6}), hidden=2), kept)
    assert parts["PAID"] == pytest.approx(parts["SOLD"], rel=0, abs=1e-12)
    assert parts["PAID"] > 0.1
    uneven = parts_of(score_of(planted({(0, PAID): 0.6, (0, SOLD): 0.7}), hidden=2), kept)
    assert uneven["SOLD"] > uneven["PAID"] + 0.01


def test_a_group_without_events_or_of_events_long_ago_has_no_part() -> None:
    score = random_score("linear_attention")
    tokens = sequence(30, 10, (SOLD, OTHER))
    assert list(parts_of(score, tokens)) == ["SOLD"]
    tokens = [*sequence(30, 10, (SOLD,))[:-1], *sequence(10, 11, (OTHER,))]
    first = tokens[29][0] - tokens[30][0] + DAY
    tokens = with_gaps([*tokens[:30], *((time + first, codes, parts) for time, codes, parts in tokens[30:])], None)
    assert parts_of(score, tokens, tail=10) == {}
    found = Division(score, PLAN).coalitions(view_of(score, tokens, 10))
    assert found.scores.tolist() == [streamed(score, tokens)]
    assert list(parts_of(score, tokens, tail=11)) == ["SOLD"]
    assert parts_of(random_score("gru", {}), tokens) == {}


def test_the_view_stays_as_it_is() -> None:
    score = random_score("transformer")
    view = view_of(score, sequence(30, 12), 20)
    before = [view.before.to_bytes(), view.rows.codes.copy(), view.rows.parts.copy(), view.application.codes.copy()]
    Division(score, PLAN).coalitions(view)
    assert view.before.to_bytes() == before[0]
    assert np.array_equal(view.rows.codes, before[1])  # type: ignore[arg-type]
    assert np.array_equal(view.rows.parts, before[2])  # type: ignore[arg-type]
    assert np.array_equal(view.application.codes, before[3])  # type: ignore[arg-type]
