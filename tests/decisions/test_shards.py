"""Two writers and a front end, as real processes on a real PostgreSQL: what a log of several shards promises."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.decisions.desk import application, desk_bundle, repayment, sale
from tests.decisions.sharding import Cluster, Nursery
from tests.postgres_server import Server

from obligor.decisions.answers import moment
from obligor.decisions.record import decode
from obligor.decisions.replay import audit
from obligor.events.positions import shard_of
from obligor.features.buckets import bucket_of
from obligor.models.bundle import Bundle

APPLICATIONS = 50
SECONDS_MAX = 60.0
NOW: Any = {"event_time": moment(time.time_ns() // 1000 - 3_600_000_000)}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def nursery(bundle: Bundle) -> Iterator[Nursery]:
    nursery = Nursery(bundle.path)
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def cluster(postgres: Server, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Cluster]:
    """Two shards, which the tests use one after the other."""
    cluster = Cluster(postgres, "desk", tmp_path_factory.mktemp("shards"), nursery, 2)
    yield cluster
    cluster.stop()


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.front, timeout=SECONDS_MAX) as client:
        yield client


def decide(http: httpx.Client, number: str, consumer: str, amount: int = 60_000, **fields: Any) -> dict[str, Any]:
    """Return the record of the decision on an application."""
    answer = http.post("/v1/decisions", json=application(number, consumer, amount, **NOW, **fields))
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = http.get(f"/v1/decisions/{answer.json()['decision_id']}").json()["record"]
    return record


def _bucket(consumer: str) -> int:
    return bucket_of(["consumer"], consumer)


def race(http: httpx.Client, consumer: str) -> Counter[str]:
    """Send many applications of one consumer at once."""
    with ThreadPoolExecutor(16) as pool:
        numbers = [f"{consumer}-{next(_numbers)}" for _ in range(APPLICATIONS)]
        return Counter(pool.map(lambda number: decide(http, number, consumer, 80_000)["outcome"], numbers))


def assert_replays(cluster: Cluster, bundle: Bundle) -> int:
    """Every chain is whole and every decision is the same again, in this process, which decided none."""
    with cluster.log() as log:
        assert log.verify(deep=True) == []
        found = audit(log, {bundle.hash: bundle})
        assert found.clean, [one for one in found.verdicts if one.verdict != "identical"][:3]
        return len(found.verdicts)


def test_one_of_fifty_applications_of_a_consumer_is_approved(cluster: Cluster, http: httpx.Client) -> None:
    for shard in range(2):
        [consumer] = cluster.consumers(shard, 1, "race")
        assert race(http, consumer) == {"approve": 1, "decline": APPLICATIONS - 1}
        with cluster.log() as log:
            facts = log.facts("loan_application").rows.to_pylist()
        assert {shard_of(one["root"]) for one in facts if one["consumer"] == consumer} == {shard}


def test_more_are_approved_where_anyone_decides_anybody(postgres: Server, tmp_path: Path, nursery: Nursery) -> None:
    """The control: applications go by their ids, and no writer minds."""
    cluster = Cluster(postgres, "anyone", tmp_path, nursery, 2, fault="anyone")
    try:
        with httpx.Client(base_url=cluster.front, timeout=SECONDS_MAX) as http:
            assert any(race(http, f"race-{i}")["approve"] > 1 for i in range(40)), "seldom, but in one of so many"
    finally:
        cluster.stop()


def test_an_application_at_the_wrong_writer_is_refused_and_nothing_is_written(cluster: Cluster) -> None:
    [consumer] = cluster.consumers(1, 1)
    made = application("misdirected", consumer)
    answer = httpx.post(f"{cluster.writers[0][1]}/v1/decisions", json=made)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (421, "$.consumer")
    with cluster.log() as log:
        assert log.find("a-misdirected") is None
    assert httpx.post(f"{cluster.writers[1][1]}/v1/decisions", json=made).status_code == 200


def test_a_merchant_s_features_reach_across_shards_and_replay(
    cluster: Cluster, http: httpx.Client, bundle: Bundle
) -> None:
    buyers = [cluster.consumers(shard, 4, "buyer") for shard in range(2)]
    sales = [sale(f"m-{one}", "m-both", 1_000, consumer=one, **NOW) for own in buyers for one in own]
    found = http.post("/v1/events", json=sales).json()["events"]
    assert [one["status"] for one in found] == ["accepted"] * 8
    assert [shard_of(one["position"]) for one in found] == [0] * 4 + [1] * 4
    for shard in range(2):
        record = decide(http, f"across-{shard}", buyers[shard][0], merchant="m-both")
        assert record["cut"].keys() == {"0", "1"}
        seen = {name: record["features"][bundle.plan.names.index(name)] for name in ("sold", "buyers")}
        assert seen == {"sold": 8_000, "buyers": 8}, "of both shards"
    corrected = {"type": "sale", "event_id": "k-1", "retracts": f"s-m-{buyers[0][0]}"}
    for address in (cluster.writers[1][1], cluster.writers[0][1]):  # the fact is on shard 0, its retraction on shard 1
        status = httpx.post(f"{address}/v1/events", json=[corrected]).json()["events"][0]["status"]
        assert status == ("accepted" if address == cluster.writers[1][1] else "duplicate")
    for shard in range(2):
        record = decide(http, f"corrected-{shard}", buyers[shard][1], merchant="m-both")
        assert record["features"][bundle.plan.names.index("sold")] == 7_000
    assert assert_replays(cluster, bundle) >= 4


def test_an_event_sent_to_both_writers_at_once_goes_in_once(cluster: Cluster) -> None:
    def send(shard: int, record: dict[str, Any]) -> str:
        answer = httpx.post(f"{cluster.writers[shard][1]}/v1/events", json=[record], timeout=SECONDS_MAX)
        return str(answer.json()["events"][0]["status"])

    with ThreadPoolExecutor(2) as pool:
        for number in range(20):
            made = [repayment(f"both-{number}", amount=1_000 + (number % 2) * shard, **NOW) for shard in range(2)]
            found = sorted(pool.map(send, range(2), made))
            assert found == ["accepted", "conflict" if number % 2 else "duplicate"]
    with cluster.log() as log:
        assert log.verify(deep=True) == []


def test_a_list_is_split_and_its_answers_come_in_its_order(cluster: Cluster, http: httpx.Client) -> None:
    one, two = (cluster.consumers(shard, 1)[0] for shard in range(2))
    made: list[Any] = [
        repayment("o-1", two, **NOW),
        {**repayment("o-2", one, **NOW), "amount": "much"},
        repayment("o-3", one, **NOW),
        {**repayment("o-4", two, **NOW), "loan": 7},
        "no event",
        repayment("o-1", two, amount=5, **NOW),
    ]
    answer = http.post("/v1/events", json=made)
    found = answer.json()["events"]
    assert answer.status_code == 207
    assert [one["status"] for one in found] == ["accepted", "invalid", "accepted", "invalid", "invalid", "conflict"]
    paths = [error["path"] for one in found for error in one.get("errors", ())]
    assert paths == ["$[1].amount", "$[3].loan", "$[4]", "$[5]"]
    assert http.post("/v1/events", json=repayment("o-3", one, **NOW)).json()["events"][0]["status"] == "duplicate"
    assert http.post("/v1/events", json=made[1]).json()["errors"][0]["path"] == "$.amount"
    assert http.post("/v1/events", content=b"[{]").status_code == 400
    assert http.post("/v1/decisions", json={"amount": 1}).status_code == 422
    assert http.get("/v1/decisions/d-none").status_code == 404
    assert 'obligor_forwarded_total{shard="1",status="207"}' in http.get("/metrics").text


class Traffic(threading.Thread):
    """Sends events and applications of one shard through the front end; what it is refused it sends again."""

    def __init__(self, address: str, consumers: list[str], number: int) -> None:
        super().__init__()
        self._address, self._consumers, self._number = address, consumers, number
        self.events: dict[str, int] = {}  # id: position
        self.decisions: dict[str, str] = {}  # application: decision
        self.refused: Counter[int] = Counter()
        self.stopping = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self.error = error

    def _run(self) -> None:
        chance = random.Random(self._number)
        with httpx.Client(base_url=self._address, timeout=SECONDS_MAX) as http:
            for step in itertools.count():
                if self.stopping.is_set():
                    return
                consumer, name = chance.choice(self._consumers), f"{self._number}-{step}"
                if step % 3:
                    made = [repayment(f"{name}-{i}", consumer, **NOW) for i in range(3)]
                    for one in self._sent(http, "/v1/events", made)["events"]:
                        self.events[one["event_id"]] = one["position"]
                else:
                    answer = self._sent(http, "/v1/decisions", application(name, consumer, **NOW))
                    self.decisions[answer["application_id"]] = answer["decision_id"]

    def _sent(self, http: httpx.Client, path: str, made: Any) -> dict[str, Any]:
        """Send until it is taken."""
        deadline = time.monotonic() + SECONDS_MAX
        while (answer := http.post(path, json=made)).status_code != 200:
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"] == "1"
            assert time.monotonic() < deadline
            self.refused[answer.status_code] += 1
            time.sleep(0.02)
        found: dict[str, Any] = answer.json()
        return found


def test_a_killed_writer_loses_nothing_and_the_other_shard_goes_on(
    cluster: Cluster, http: httpx.Client, bundle: Bundle
) -> None:
    traffic = [
        Traffic(cluster.front, cluster.consumers(shard, 5, "t"), 2 * n + shard) for n in range(2) for shard in (0, 1)
    ]
    for one in traffic:
        one.start()
    for _ in range(3):
        deadline = time.monotonic() + SECONDS_MAX
        while not all(one.decisions for one in traffic):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        cluster.kill(1)
        assert http.get("/readyz").json()["status"] == "partly ready"
        before = [len(one.events) for one in traffic]
        time.sleep(0.4)
        gone_on = [len(one.events) > n for one, n in zip(traffic, before, strict=True)]
        assert gone_on == [True, False, True, False], "shard 0 is left alone"
        mixed = [repayment(f"mixed-{next(_numbers)}", cluster.consumers(shard, 1)[0], **NOW) for shard in range(2)]
        answer = http.post("/v1/events", json=mixed)
        assert [one["status"] for one in answer.json()["events"]] == ["accepted", "unavailable"]
        assert (answer.status_code, answer.headers["retry-after"]) == (207, "1")
        known = next(iter(traffic[1].decisions.values()))
        assert http.get(f"/v1/decisions/{known}").status_code == 200, "any writer can read it"
        cluster.start_writer(1)
    time.sleep(0.4)
    for one in traffic:
        one.stopping.set()
    for one in traffic:
        one.join(SECONDS_MAX)
    assert [one.error for one in traffic] == [None] * 4
    assert traffic[1].refused
    assert traffic[0].refused == {}
    with cluster.log() as log:
        for one in traffic:
            assert {id: log.find(id) for id in one.events} == one.events
            found = {id: log.decision(decision) for id, decision in one.decisions.items()}
            assert all(decode(row.record)["application"]["event_id"] == id for id, row in found.items())
        taken = Counter(decode(row.record)["application"]["event_id"] for row in log.decisions())
        assert set(taken.values()) == {1}
    assert_replays(cluster, bundle)


def test_what_no_shard_takes_is_503(cluster: Cluster, http: httpx.Client) -> None:
    made = [repayment(f"g-{shard}", cluster.consumers(shard, 1)[0], **NOW) for shard in range(2)]
    for shard in range(2):
        cluster.kill(shard)
    for answer in (http.post("/v1/events", json=made), http.get("/v1/decisions/d-1"), http.get("/readyz")):
        assert answer.status_code == 503
    assert http.post("/v1/events", json=made).headers["retry-after"] == "1"
    assert http.get("/healthz").status_code == 200
    for shard in range(2):
        cluster.start_writer(shard)
    assert http.post("/v1/events", json=made).status_code == 200


REPLAY = """
import json, sys
from pathlib import Path
from tests.decisions.sharding import read_log
from obligor.decisions.replay import audit
from obligor.models.bundle import Bundle
bundle = Bundle.load(Path(sys.argv[2]))
with read_log(sys.argv[1]) as log:
    found = audit(log, {bundle.hash: bundle})
print(json.dumps([found.clean, len(found.verdicts)]))
"""


def test_a_log_goes_to_three_shards_and_every_old_decision_replays(
    cluster: Cluster, http: httpx.Client, bundle: Bundle
) -> None:
    """The last of this file: the cluster has three shards afterwards."""
    before = cluster.map
    moved = [one for one in cluster.consumers(0, 60, "w") if before.widened().shards[_bucket(one)] == 2][:3]
    stayed = [one for one in cluster.consumers(1, 60, "w") if before.widened().shards[_bucket(one)] == 1][:3]
    for one in (*moved, *stayed):
        http.post("/v1/events", json=repayment(f"w-{one}", one, **NOW))
        assert decide(http, f"w-{one}", one, 80_000)["outcome"] == "approve"
    cluster.widen()
    assert len(cluster.writers) == 3
    with httpx.Client(base_url=cluster.front, timeout=SECONDS_MAX) as wider:
        again = wider.post("/v1/decisions", json=application(f"w-{moved[0]}", moved[0], 80_000, **NOW))
        assert again.headers["obligor-repeated"] == "true", "its decision is on the shard that it was on"
        for one in (*moved, *stayed):
            record = decide(wider, f"w2-{one}", one, 80_000)
            assert (record["outcome"], record["cut"].keys()) == ("decline", {"0", "1", "2"}), "what was offered counts"
            assert shard_of(record["application"]["position"]) == (2 if one in moved else 1)
    decisions = assert_replays(cluster, bundle)
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, cluster.url, str(bundle.path)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [True, decisions], "in a fresh process, too"
