"""Vectors with a sequence's score behind the features: recorded with decisions, computed again, compared, replayed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.models.sequence_lender import DAY, DAYS, START, Asking, World, fused_world, moment

from obligor.decisions.decide import decide
from obligor.decisions.parity import check_decisions
from obligor.decisions.policy import load_policy
from obligor.decisions.record import decision_id, derive_seed, encode
from obligor.decisions.recorded import Applications, Seen
from obligor.decisions.replay import audit, replay
from obligor.decisions.vectors import vectors_of
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.models.bundle import Bundle
from obligor.sequences.score import SequenceScore
from obligor.sequences.weights import dump, parse

NOW = START + (DAYS + 70) * DAY


class Swapped(NamedTuple):
    """A bundle with another score in it."""

    of: Bundle
    sequence: SequenceScore

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A trained world in whose log decisions were taken, and where later events, late ones among them, came in."""
    made = fused_world(tmp_path_factory.mktemp("vectors"))
    chance = random.Random(4)
    for i in range(24):
        who, at = f"c-{chance.randrange(6)}", NOW + i * DAY // 8
        transfer = {"event_id": f"n-{i}", "way": chance.choice(["borrowed", "repaid"]), "amount": 1_000 * i + 1}
        late = chance.randrange(30 * DAY) if i % 3 == 0 else chance.randrange(DAY // 8)
        _append(made.log, {"type": "transfer", "event_time": moment(at - late), "consumer": who, **transfer}, at)
        _decided(made.log, made.bundle, f"d-{i}", who, at + 1)
    yield made
    made.log.close()


def _append(log: EventLog, record: Mapping[str, Any], now: int) -> None:
    batch, problems = parse_records(log.registry, record, commitment_key=log.commitment_key)
    assert not problems, problems
    with log.begin(now) as tx:
        tx.append(batch)
        tx.commit()


def _decided(log: EventLog, bundle: Bundle, name: str, who: str, now: int) -> None:
    """Take one decision as a writer would: on what the log has at this moment."""
    record = {"type": "asking", "event_id": name, "event_time": moment(now), "consumer": who, "amount": 50_000}
    batch, problems = parse_records(log.registry, record, commitment_key=log.commitment_key)
    assert not problems, problems
    policy = load_policy(bundle.policy, bundle.described, Asking.describe(readable=True))
    cut = log.cut()
    with log.begin(now) as tx:
        position = int(tx.append(batch).position[0])
        tx.commit()
    found = Applications.read(log, "asking", [position])
    application, as_of = found.application(position, "asking")
    requests = found.requests(bundle.plan, [position], [Seen(cut, None)])
    features, limits = vectors_of(log, bundle, requests, 1)
    assert not limits
    decision = decide(
        application, features[0], bundle, policy, as_of=as_of, cut=cut, seed=derive_seed(log.id, name), rung="full"
    )
    with log.begin(now + 1) as tx:
        encoded = encode(decision, log_id=log.id, bundle=bundle.hash, chain=log.chain(position - 1))
        tx.record(decision_id(log.id, name), position, encoded)
        tx.commit()


def _changed(bundle: Bundle, name: str) -> Swapped:
    """The bundle with one weight of the encoder or of a head changed a little."""
    score = bundle.sequence
    assert score is not None
    tensors = {key: value.copy() for key, value in score.weights.tensors.items()}
    tensors[name].reshape(-1)[0] += np.float32(0.01)
    content = dump(score.weights.config, tensors)
    weights = parse(content, hashlib.sha256(content).hexdigest())
    other = SequenceScore(score.name, score.sequence, score.tokenizer, weights, score.heads, score.reason, score.groups)
    return Swapped(bundle, other)


def test_decisions_with_a_score_replay_to_the_byte(world: World) -> None:
    found = audit(world.log, {world.bundle.hash: world.bundle})
    assert found.clean
    assert len(found.verdicts) == 24
    records = [json.loads(row.record) for row in world.log.decisions()]
    assert {len(record["features"]) for record in records} == {len(world.bundle.features)}
    assert len({record["features"][-1] for record in records}) == 24
    assert len({record["outcome"] for record in records}) > 1
    assert all("HISTORY" in record["contributions"] for record in records)


def test_a_fresh_load_replays_one_decision_as_among_all(world: World) -> None:
    fresh = Bundle.load(world.bundle.path)
    for row in list(world.log.decisions())[::5]:
        (verdict,) = replay(world.log, {fresh.hash: fresh}, [row.decision_id])
        assert verdict.verdict == "identical", verdict


@pytest.mark.parametrize("name", ["gru.weight_hh", "head.fold_1.out", "gru.bias_ih"])
def test_one_weight_changed_is_named(world: World, name: str) -> None:
    """The control: replay looks at the score."""
    verdicts = replay(world.log, {world.bundle.hash: _changed(world.bundle, name)})
    assert {verdict.verdict for verdict in verdicts} == {"differs"}
    assert all("features.history_score" in verdict.fields for verdict in verdicts)
    assert not any(
        field.startswith("features.") and field != "features.history_score" for v in verdicts for field in v.fields
    )


def test_parity_compares_the_score_with_the_other_features(world: World) -> None:
    rows = list(world.log.decisions())
    found = check_decisions(world.log, {world.bundle.hash: world.bundle}, rows)
    assert (found.comparison.checked, found.comparison.differences, found.unchecked) == (24, 0, {})
    other = check_decisions(world.log, {world.bundle.hash: _changed(world.bundle, "gru.weight_hh")}, rows)
    assert other.comparison.counts == {"history_score": 24}
    assert other.comparison.found[0].name == rows[0].decision_id


def test_an_earlier_cut_gives_an_earlier_score(world: World) -> None:
    verdicts = replay(world.log, {world.bundle.hash: world.bundle}, at={0: 3})
    assert all("features.history_score" in verdict.fields for verdict in verdicts)
