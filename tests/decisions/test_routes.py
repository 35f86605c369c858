"""Which shard an event goes to: by its consumer, else by its id; a map that is widened moves a fair part."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.decisions.shop import REGISTRY

from obligor.decisions.routes import Routes, ShardMap
from obligor.errors import DefinitionError, IntegrityError
from obligor.events.records import parse_records
from obligor.features.buckets import BUCKETS, bucket_of


def test_widening_takes_a_fair_share_of_each_shard_and_moves_nothing_else() -> None:
    before = ShardMap.first("consumer")
    for count in range(2, 9):
        after = before.widened()
        assert after.count == count
        assert max(after.sizes()) - min(after.sizes()) < count
        assert {new for old, new in zip(before.shards, after.shards, strict=True) if old != new} == {count - 1}
        assert after.shards.count(count - 1) == BUCKETS // count
        before = after
    assert ShardMap.read(before.recorded()) == before


@pytest.mark.parametrize(
    "damaged", [b"", b"{}", b'{"entity":"consumer","shards":[0]}', ShardMap("c", [-1] * BUCKETS).recorded()]
)
def test_a_map_that_is_none_is_refused(damaged: bytes) -> None:
    with pytest.raises(IntegrityError, match="map of shards"):
        ShardMap.read(damaged)


def test_records_go_by_their_consumer_and_others_by_the_id_they_are_about() -> None:
    routes = Routes.of(ShardMap.first("consumer").widened().widened(), REGISTRY)

    def shard(kind: str, key: str) -> int:
        return routes.map.shards[bucket_of([kind], key)]

    for number in range(50):
        consumer, id = f"c-{number}", f"e-{number}"
        assert routes.of_record({"type": "repayment", "event_id": id, "consumer": consumer}) == shard(
            "consumer", consumer
        )
        retraction = {"type": "repayment", "event_id": "x", "retracts": id}
        assert routes.of_record(retraction) == routes.of_record({"type": "?", "event_id": id}) == shard("event", id)
    for none in (7, None, {}, {"type": ["repayment"], "event_id": 3}):
        assert routes.of_record(none) == 0


def test_an_application_without_the_entity_of_the_shards_is_a_definition_error() -> None:
    with pytest.raises(DefinitionError, match="names no 'borrower'"):
        Routes.of(ShardMap.first("borrower"), REGISTRY)


def test_rows_of_a_batch_go_where_their_records_go() -> None:
    routes = Routes.of(ShardMap.first("consumer").widened().widened(), REGISTRY)
    chance = random.Random(11)
    records: list[dict[str, Any]] = []
    for number in range(300):
        common = {"event_id": f"é-{number}", "event_time": "2026-01-02T03:04:05Z", "consumer": f"c-{chance.random()}"}
        kind = chance.choice(["repayment", "purchase", "sale", "sale without", "retraction", "correction"])
        paid = {**common, "type": "repayment", "loan": "l-1", "amount": 5}
        if kind == "retraction":
            records.append({"type": "sale", "event_id": common["event_id"], "retracts": f"r-{number}"})
        elif kind == "correction":
            records.append({**paid, "corrects": f"r-{number}"})
        elif kind == "repayment":
            records.append(paid)
        else:
            own = {**common, "type": kind.split()[0], "merchant": "m-1", "amount": 7}
            records.append({name: value for name, value in own.items() if kind[4:] != " without" or name != "consumer"})
    batch, problems = parse_records(REGISTRY, records, commitment_key=b"k" * 32)
    assert problems == {}
    found = routes.of_batch(batch).tolist()
    assert found == [routes.of_record(record) for record in records]
    assert set(found) == {0, 1, 2}
    assert routes.of_batch(batch.slice(250, 300)).tolist() == found[250:]
