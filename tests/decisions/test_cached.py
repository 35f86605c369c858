"""The rung `cached`: decisions without the state rest on what was computed before it went, never on old exposure."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.tampering import change_record
from tests.decisions.desk import (
    DAY_US,
    POLICY,
    REGISTRY,
    START_US,
    Desk,
    Repayment,
    desk_bundle,
    desk_plan,
    repayment,
    rewritten,
    sale,
)
from tests.stores.redis_server import RedisServer, own_redis

from obligor.decisions import cached as module
from obligor.decisions.asked import decided_questions
from obligor.decisions.cached import Cache
from obligor.decisions.items import Decided, Item
from obligor.decisions.parity import check_decisions
from obligor.decisions.policy import Caching, Policy, load_policy
from obligor.decisions.recorded import Applications, Recorded, Seen
from obligor.decisions.replay import Verdict, audit, replay
from obligor.errors import DefinitionError
from obligor.events.log import EventLog
from obligor.features import application as asked
from obligor.features import as_of, feature
from obligor.features.concerned import features_of
from obligor.features.state import OnlineState, StagedState
from obligor.models.bundle import Bundle
from obligor.stores.redis import RedisStateStore
from obligor.stores.sqlite import SQLiteStore

SECONDS_MAX = 60.0
MINUTE_US = 60_000_000
LADDER = '\n[ladder]\nrungs = ["full", "cached", "refer"]\ncached_age_max = "10m"\n'


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bundles")
    larger = feature(Repayment.by("consumer").where(Repayment.amount > asked.amount).count("30d"), scored=False)
    plan = desk_plan(larger=larger, hour=feature(as_of.hour(), scored=False))
    return rewritten(desk_bundle(root), root, plan=plan.canonical, policy=POLICY.encode() + LADDER.encode())


server = pytest.fixture(own_redis)


class FarDesk(Desk):
    """A desk whose state is in Redis, which goes and comes back."""

    def __init__(self, path: Path, bundle: Bundle, server: RedisServer) -> None:
        self.server = server
        super().__init__(path, bundle)

    def open_state(self) -> OnlineState:
        return OnlineState(self.bundle.plan, RedisStateStore(self.server.address, "cached"))

    def back(self) -> None:
        """Have Redis start again and the writer take the state back."""
        self.server.start()
        deadline_s = time.monotonic() + SECONDS_MAX
        while self.writer.state_gone:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
            self.writer.regain()

    @property
    def held(self) -> dict[str, Bundle]:
        """The bundle by its hash, for replay."""
        return {self.bundle.hash: self.bundle}

    def assert_sound(self) -> None:
        """Assert that all decisions replay, and that every recorded number is the log's."""
        assert audit(self.log, self.held).clean
        assert check_decisions(self.log, self.held, self.log.decisions()).comparison.differences == 0

    def rungs(self, *numbers: object, **fields: Any) -> list[str]:
        """Return the rungs that applications are decided on, one after the other."""
        return [self.decide(str(number), **fields)["rung"] for number in numbers]


@pytest.fixture
def desk(tmp_path: Path, bundle: Bundle, server: RedisServer) -> Iterator[FarDesk]:
    made = FarDesk(tmp_path, bundle, server)
    yield made
    made.close()


def test_while_the_state_is_gone_the_last_view_of_an_applicant_decides(desk: FarDesk) -> None:
    desk.one(desk.events(repayment(1, "c-1", 700), repayment(2, "c-1", 65_000), sale(1, "m-1")))
    first = desk.decide(1, merchant="m-1", amount=60_000)
    assert (first["rung"], first["outcome"]) == ("full", "approve")
    assert "cached" not in first
    head = desk.log.head
    desk.server.kill()
    desk.one(desk.events(sale(2, "m-1"), repayment(3, "c-2")))  # of the merchant and of somebody else
    second = desk.decide(2, merchant="m-1", amount=60_000, channel="web")
    assert (second["rung"], second["cached"]) == ("cached", {"cut": {"0": head.sequence}, "as_of": head.known_time + 1})
    assert second["cut"] == {"0": head.sequence + 3}, "it knows of what it did not look at"
    assert desk.feature(second, "exposure") == 60_000, "what the first one was offered"
    assert (second["outcome"], desk.feature(second, "asked_before")) == ("decline", 1)
    assert desk.feature(second, "sold") == 500, "the sale since is not in it"
    assert desk.feature(second, "asked") == 60_000
    assert desk.decide(3, merchant="m-1", amount=60_000)["rung"] == "refer", "its own decision ends it"
    text = desk.metrics.render().decode()
    assert 'obligor_decisions_total{outcome="decline",rung="cached"} 1.0' in text
    desk.back()
    last = desk.decide(4, merchant="m-1", amount=60_000)
    assert (last["rung"], desk.feature(last, "sold")) == ("full", 1_000)
    desk.assert_sound()


def test_the_application_s_own_fields_are_its_own(desk: FarDesk) -> None:
    desk.one(desk.events(repayment(1, "c-1", 65_000)))
    desk.decide(1, amount=1_000_000)
    desk.server.kill()
    assert desk.rungs("other amount", amount=60_000) == ["refer"], "repayments are compared with the amount"
    assert desk.rungs("other merchant", amount=1_000_000, merchant="m-9") == ["refer"]
    desk.back()
    desk.decide(2, "c-2", amount=60_000, channel="app")
    desk.server.kill()
    desk.clock.at_us += MINUTE_US
    record = desk.decide(3, "c-2", amount=60_000, channel="web")
    assert record["rung"] == "cached"
    assert record["as_of"] - record["cached"]["as_of"] > MINUTE_US
    desk.assert_sound()


def test_what_is_asked_again_is_what_was_computed(desk: FarDesk) -> None:
    """The questions that features are retrieved and compared for have a cached decision's cut and instant."""
    desk.decide(1, merchant="m-1")
    desk.server.kill()
    desk.one(desk.events(sale(1, "m-1")))
    record = desk.decide(2, merchant="m-1")
    assert record["rung"] == "cached"
    (row,) = [one for one in desk.log.decisions() if one.decision_id == record["decision_id"]]
    assert Recorded.read(row).seen == Seen({0: record["cached"]["cut"]["0"]}, record["cached"]["as_of"])
    questions = decided_questions(desk.log, REGISTRY["loan_application"])
    assert questions["cut"].to_pylist() == [1, record["cached"]["cut"]["0"]] == [1, 2]
    assert questions["as_of"].cast("int64").to_pylist()[1] == record["cached"]["as_of"]


# ---- what ends an entry ----------------------------------------------------------------------------------------------


def test_an_event_of_the_applicant_ends_it_whenever_it_comes(desk: FarDesk) -> None:
    for number in range(4):
        desk.decide(f"first-{number}", f"c-{number}")
    assert desk.writer.cached == 4
    desk.one(desk.events(repayment(1, "c-1")))
    assert desk.writer.cached == 3, "one that comes while the state is there"
    desk.server.kill()
    desk.one(desk.events(repayment(2, "c-2")))
    assert [desk.decide(number, f"c-{number}")["rung"] for number in range(4)] == ["cached", "refer", "refer", "cached"]
    desk.assert_sound()


def test_what_is_staged_before_it_in_the_same_batch_ends_it(desk: FarDesk) -> None:
    for consumer in ("c-1", "c-2", "c-3"):
        desk.decide(f"first-{consumer}", consumer)
    desk.server.kill()
    items: list[Item] = [
        desk.application(1, "c-1"),
        desk.events(repayment(1, "c-2")),
        desk.application(2, "c-2"),
        desk.application(3, "c-1"),
        desk.application(4, "c-3"),
    ]
    results = desk.writer.process(items)
    desk.writer.settle()
    rungs = [json.loads(one.record)["rung"] for one in results if isinstance(one, Decided)]
    assert rungs == ["cached", "refer", "refer", "cached"]
    desk.assert_sound()


def test_a_correction_ends_those_of_both_that_it_concerns(desk: FarDesk) -> None:
    desk.one(desk.events(repayment(1, "c-1")))
    for consumer in ("c-1", "c-2", "c-3"):
        desk.decide(f"first-{consumer}", consumer)
    desk.server.kill()
    moved = repayment(1, "c-2") | {"event_id": "r-1-moved", "corrects": "r-1"}
    desk.one(desk.events(moved))
    assert [desk.decide(c, c)["rung"] for c in ("c-1", "c-2", "c-3")] == ["refer", "refer", "cached"]
    desk.assert_sound()


@pytest.mark.parametrize("protected", [True, False])
def test_something_in_the_future_is_not_cached(desk: FarDesk, protected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would come into view without an event: here a loan that is open five minutes later."""
    if not protected:
        monkeypatch.setattr(StagedState, "newest", lambda *_: None)
    opened = {"type": "loan_opened", "event_id": "o-1", "event_time": "2026-01-01T00:05:00Z", "consumer": "c-1"}
    desk.one(desk.events(opened | {"loan": "l-1", "application_id": "a-0", "amount": 20_000}))
    for consumer in ("c-1", "c-2"):
        desk.decide(f"first-{consumer}", consumer)
    desk.server.kill()
    desk.clock.at_us += 6 * MINUTE_US
    rungs = [desk.decide(c, c)["rung"] for c in ("c-1", "c-2")]
    assert rungs == ["refer" if protected else "cached", "cached"]
    assert _old_exposures(desk) == (0 if protected else 1)
    desk.assert_sound()


def test_it_is_used_no_longer_than_the_policy_says(desk: FarDesk) -> None:
    desk.decide("first-1", "c-1")
    desk.decide("first-2", "c-2")
    known = desk.log.head.known_time
    desk.server.kill()
    desk.decide("lost", "c-9")
    desk.clock.at_us = known + 10 * MINUTE_US - 1_000
    assert desk.decide(1, "c-1")["rung"] == "cached"
    desk.clock.at_us = known + 10 * MINUTE_US + 1_000
    assert desk.decide(2, "c-2")["rung"] == "refer"
    desk.assert_sound()


def test_those_decided_on_longest_ago_go_first(desk: FarDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPLICANTS_MAX", 3)
    for number in (1, 2, 3, 1, 4):
        desk.decide(f"first-{number}-{desk.log.head.sequence}", f"c-{number}")
    assert desk.writer.cached == 3
    desk.server.kill()
    assert [desk.decide(n, f"c-{n}")["rung"] for n in range(1, 5)] == ["cached", "refer", "cached", "cached"]


def test_a_state_in_doubt_leaves_nothing(desk: FarDesk) -> None:
    desk.decide("first", "c-1")
    desk.writer.rebuild()
    assert desk.writer.cached == 0
    desk.decide("second", "c-1")
    desk.server.kill()
    desk.writer.trust = "lost"
    assert desk.rungs(1) == ["refer"]


def test_without_an_age_there_is_no_such_rung_and_nothing_is_kept(
    tmp_path: Path, bundle: Bundle, server: RedisServer
) -> None:
    plain = rewritten(bundle, tmp_path / "bundles", policy=POLICY.encode())
    desk = FarDesk(tmp_path, plain, server)
    desk.decide(1)
    assert desk.writer.cached == 0
    server.kill()
    assert desk.rungs(2) == ["refer"]
    desk.close()


def test_a_state_that_cannot_go_away_costs_nothing(tmp_path: Path, bundle: Bundle) -> None:
    desk = Desk(tmp_path, bundle)
    desk.decide(1)
    assert desk.writer.cached == 0
    desk.close()


# ---- exposure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [True, False])
def test_no_two_decisions_without_the_state_pass_one_limit(
    desk: FarDesk, protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applications of one consumer for 40,000 each, of which 100,000 are allowed."""
    before = desk.decide("first", "c-1", amount=40_000)
    if not protected:
        monkeypatch.setattr(Cache, "drop", lambda self, timeline, keys: None)
    desk.server.kill()
    items: list[Item] = [desk.application(number, "c-1", amount=40_000) for number in range(2)]
    records = [json.loads(one.record) for one in desk.writer.process(items) if isinstance(one, Decided)]
    assert [one["rung"] for one in records] == ["cached", "refer" if protected else "cached"]
    offered = sum(one["offer"]["amount"] for one in (before, *records) if one["offer"])
    assert offered == (80_000 if protected else 120_000), "the limit is 100,000"
    assert _old_exposures(desk) == (0 if protected else 1)


@pytest.mark.parametrize("seed", range(3))
def test_in_random_traffic_with_outages_exposure_is_never_old(desk: FarDesk, seed: int) -> None:
    _traffic(desk, seed)
    assert _old_exposures(desk) == 0
    desk.assert_sound()


def test_if_nothing_ended_what_is_cached_it_would_be_old(desk: FarDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "drop", lambda self, timeline, keys: None)
    _traffic(desk, 0)
    assert _old_exposures(desk) > 5
    desk.assert_sound()  # it is what was recorded


def _traffic(desk: FarDesk, seed: int) -> None:
    """Let events and applications of four consumers come while Redis goes and comes back."""
    chance = random.Random(seed)
    names = [f"c-{number}" for number in range(4)]
    cached = gone = 0
    for number in range(120):
        if chance.random() < 0.06:
            if gone:
                desk.back()
            else:
                desk.server.kill()
            gone = not gone
        consumer = chance.choice(names)
        items: list[Item] = []
        for place in range(chance.randint(1, 3)):
            key = f"{seed}-{number}-{place}"
            if chance.random() < 0.35:
                items.append(desk.events(_event(chance, key, consumer)))
            else:
                items.append(desk.application(key, chance.choice(names), amount=60_000, merchant="m-1"))
        for one in desk.writer.process(items):
            if isinstance(one, Decided):
                cached += json.loads(one.record)["rung"] == "cached"
        desk.writer.settle()
        desk.clock.at_us += chance.choice([1, MINUTE_US])
    if gone:
        desk.back()
    assert cached >= 5


def _event(chance: random.Random, key: str, consumer: str) -> dict[str, Any]:
    if chance.random() < 0.5:
        return repayment(key, consumer, chance.randint(1, 20_000))
    opened = {"type": "loan_opened", "event_id": f"o-{key}", "event_time": "2025-12-31T00:00:00Z"}
    return opened | {"consumer": consumer, "loan": f"l-{consumer}", "application_id": f"a-{key}", "amount": 7_000}


def _old_exposures(desk: FarDesk) -> int:
    """Count cached decisions that do not rest on the exposure in all that the log held before their application."""
    place = desk.bundle.plan.names.index("exposure")
    rows = [Recorded.read(row) for row in desk.log.decisions()]
    taken = [one for one in rows if one.record["rung"] == "cached"]
    positions = [one.row.application_position for one in taken]
    found = Applications.read(desk.log, "loan_application", positions)

    def exposure(at: list[Seen]) -> Any:
        asked = found.requests(desk.bundle.plan, positions, at)
        return features_of(desk.log, desk.bundle.plan, asked, 1, None)[0][:, place]

    recorded = np.array([one.record["features"][place] for one in taken])
    as_cached = exposure([Seen({0: row.row.application_position - 1}, row.record["cached"]["as_of"]) for row in taken])
    as_decided = exposure([Seen({0: row.row.application_position - 1}, None) for row in taken])
    return int(((as_cached != recorded) | (as_decided > recorded)).sum())


# ---- replay ----------------------------------------------------------------------------------------------------------


def _verdict(folder: Path, desk: FarDesk, decision_id: str) -> Verdict:
    with EventLog.open(folder, REGISTRY, read_only=True, store=SQLiteStore) as log:
        (verdict,) = replay(log, desk.held, [decision_id])
    return verdict


def test_another_cached_cut_or_instant_is_named(desk: FarDesk, tmp_path: Path) -> None:
    desk.one(desk.events(sale(1, "m-1")))
    desk.one(desk.events(sale(2, "m-1")))
    desk.decide(1, merchant="m-1")
    desk.server.kill()
    record = desk.decide(2, merchant="m-1")
    name, (cut, as_of_us) = record["decision_id"], (record["cached"]["cut"]["0"], record["cached"]["as_of"])
    desk.writer.settle()
    written = b'"cached":{"as_of":%d,"cut":{"0":%d}}' % (as_of_us, cut)

    def changed(to: bytes) -> Verdict:
        copy = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tmp_path / "log", copy, ignore=shutil.ignore_patterns("*.lock"))
        change_record(copy, name, written, to)
        return _verdict(copy, desk, name)

    assert _verdict(tmp_path / "log", desk, name).verdict == "identical"
    earlier = changed(b'"cached":{"as_of":%d,"cut":{"0":1}}' % as_of_us)
    assert earlier.verdict == "differs"
    assert {"features.sold", "features.asked_before", "features.exposure"} <= set(earlier.fields)
    before = changed(b'"cached":{"as_of":%d,"cut":{"0":%d}}' % (START_US - 3 * DAY_US, cut))
    assert (before.verdict, "too old" in before.why) == ("not replayable", True)
    later = changed(b'"cached":{"as_of":%d,"cut":{"0":%d}}' % (as_of_us, cut + 100))
    assert (later.verdict, "later cut" in later.why) == ("not replayable", True)
    none = changed(b'"cached":null')
    assert (none.verdict, "what is cached" in none.why) == ("not replayable", True)


def test_a_writer_of_the_same_log_without_outages_would_have_decided_in_full(desk: FarDesk) -> None:
    """The ladder is left as soon as the state is back, and its decisions are in the next ones' exposure."""
    desk.decide(1, "c-1")
    desk.server.kill()
    assert desk.rungs("2", consumer="c-1") == ["cached"]
    desk.back()
    record = desk.decide(3, "c-1")
    assert (record["rung"], desk.feature(record, "asked_before")) == ("full", 2)
    desk.assert_offline_agrees(record)


# ---- the policy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"10m"', '"soon"', "policy.toml $.ladder.cached_age_max: expected a length such as"),
        ('"10m"', '"2d"', "policy.toml $.ladder.cached_age_max: expected at most 1d, got '2d'"),
        (
            "cached_age_max",
            "cached_age",
            "policy.toml $.ladder.cached_age: unknown key; did you mean 'cached_age_max'?",
        ),
        ('"cached", ', "", "policy.toml $.ladder.cached_age_max: expected the rung 'cached' in rungs with it"),
        (
            "[exposure]",
            "[offer.x]",
            "policy.toml $.ladder.cached_age_max: expected an [exposure] that is measured of one",
        ),
        ('feature = "exposure"', 'feature = "asked"', "policy.toml $.ladder.cached_age_max: expected an [exposure]"),
    ],
)
def test_a_wrong_ladder_names_the_place(bundle: Bundle, old: str, new: str, problem: str) -> None:
    text = POLICY + LADDER
    assert old in text
    with pytest.raises(DefinitionError) as caught:
        _policy(text.replace(old, new), bundle)
    assert any(str(one).startswith(problem) for one in caught.value.problems), caught.value


def _policy(text: str, bundle: Bundle) -> Policy:
    return load_policy(text, bundle.plan.data, REGISTRY["loan_application"].describe())


def test_a_policy_says_whose_exposure_is_meant(bundle: Bundle) -> None:
    read = _policy(POLICY + LADDER, bundle)
    assert read.caching == Caching(10 * MINUTE_US, "consumer", ("consumer",))
    assert read.rungs == ("full", "cached", "refer")
    without = _policy(POLICY + LADDER.replace('cached_age_max = "10m"\n', ""), bundle)
    assert (without.caching, without.rungs) == (None, ("full", "refer")), "as policies of before read"
