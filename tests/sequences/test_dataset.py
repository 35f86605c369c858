"""The dataset: what is on disk is what the twin says, from a log as from a lake; what does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.features.draws import Batch as Worlds
from tests.features.draws import drawn, side_by_side
from tests.features.lake_world import REGISTRY, History, Purchase, Repayment, Sale, Transfer, append, lake_of, new_log
from tests.features.lake_world import requests_at as draw_requests
from tests.features.oracle import Request
from tests.features.worlds import requests_of
from tests.sequences import twin

from obligor.errors import Conflict, IntegrityError, NotFound
from obligor.events.log import EventLog
from obligor.features import Plan, compile_plan, lake_files
from obligor.features import Sequence as Definition
from obligor.features.narrowing import sequence_alone
from obligor.features.requests import Requests
from obligor.features.sequence import Entering
from obligor.sequences.asked import Everyone, Questions
from obligor.sequences.dataset import HEADER, Dataset, column_path
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.loading import Loader
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.writing import write_dataset

CONSUMERS = [f"c-{i}" for i in range(60)]


@cache
def _tokenizer(limit: int | None = None) -> Tokenizer:
    return Tokenizer.load(twin.tokenizer_data(sequence_alone(twin.plan(limit), twin.NAME).hash))


@cache
def _worlds() -> Worlds:
    return side_by_side(drawn(count=40))


def contents(dataset: Dataset) -> dict[int, list[twin.Token]]:
    """Return the tokens of each question, out of batches."""
    found: dict[int, list[twin.Token]] = {}
    for batch in Loader(dataset, tokens_max=500).batches(3, 1):
        for i, n in enumerate(batch.length.tolist()):
            rows = zip(
                batch.time[i, :n].tolist(), batch.codes[i, :n].tolist(), batch.parts[i, :n].tolist(), strict=True
            )
            assert int(batch.question[i]) not in found
            found[int(batch.question[i])] = [(at, tuple(codes), tuple(parts)) for at, codes, parts in rows]
    return found


@pytest.mark.parametrize("limit", [None, 2])
def test_applications_are_what_their_views_say(limit: int | None, tmp_path: Path) -> None:
    worlds, plan = _worlds(), twin.plan(limit)
    own = twin.application_fields(len(worlds.requests))
    asked = requests_of(worlds.requests, own)
    made = write_dataset(tmp_path / "d", plan, twin.NAME, _tokenizer(limit), twin.Log(worlds.facts), asked)
    data = twin.tokenizer_data("")
    expected = {
        i: twin.expected(plan, data, facts, request, fields)
        for i, (facts, request, fields) in enumerate(zip(worlds.seen, worlds.requests, own.to_pylist(), strict=True))
    }
    assert contents(made) == expected
    assert contents(Dataset.open(tmp_path / "d")) == expected
    assert made.header.applications
    assert made.columns.as_of.tolist() == [request.as_of for request in worlds.requests]


def test_everyone_is_every_entity_at_the_cut_off(tmp_path: Path) -> None:
    worlds, plan = _worlds(), twin.plan()
    as_of, cut = max(request.as_of for request in worlds.requests), len(worlds.facts)
    at = Everyone(as_of, {0: cut})
    made = write_dataset(tmp_path / "d", plan, twin.NAME, _tokenizer(), twin.Log(worlds.facts), at)
    keys = made.keys().to_pylist()
    assert len(keys) == len(made) > 10
    data = twin.tokenizer_data("")
    expected = {
        i: twin.expected(plan, data, worlds.facts, Request(as_of, cut, {"consumer": key, "merchant": None}), None)
        for i, key in enumerate(keys)
    }
    assert contents(made) == expected
    assert made.columns.own_codes.shape == (0, 11)


def test_nothing_later_than_the_newest_question_is_in_the_folder(tmp_path: Path) -> None:
    worlds = _worlds()
    asked = [replace(one, as_of=one.as_of - 86_400_000_000) for one in worlds.requests]
    own = twin.application_fields(len(asked))
    made = write_dataset(
        tmp_path / "d", twin.plan(), twin.NAME, _tokenizer(), twin.Log(worlds.facts), requests_of(asked, own)
    )
    assert made.columns.time.max() < max(one.as_of for one in asked)


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EventLog, Plan]:
    """A log with late, corrected, retracted and moved events."""
    folder = tmp_path_factory.mktemp("lender")
    history = History(np.random.default_rng(4), consumers=CONSUMERS)
    log = new_log(folder)
    for _ in range(8):
        append(log, history.chunk(250), history.tick())
    sales = Sale.by("consumer").where(Sale.price.currency_is("NGN"))
    events: list[Entering] = [Repayment, sales, Transfer.by("sender"), Transfer.by("receiver"), Purchase]
    plan = compile_plan(
        {"asked": Purchase.by("consumer").count("9d")}, REGISTRY, Purchase,
        sequences={"history": Definition.by("consumer", events)},
    )  # fmt: skip
    return folder, log, plan


def _asked(log: EventLog) -> Requests:
    drawn = draw_requests(log, np.random.default_rng(5), 300, consumers=CONSUMERS)
    return replace(drawn, fields=drawn.fields.append_column("merchant", drawn.entities["merchant"]))


def _everyone(log: EventLog) -> Everyone:
    return Everyone(int(log.facts("repayment", columns=[]).rows["known"].to_numpy().max()), log.cut())


def test_a_lake_in_many_ranges_gives_what_the_log_gives(
    lender: tuple[Path, EventLog, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log, plan = lender
    monkeypatch.setattr(lake_files, "GROUP_ROWS", 50)
    monkeypatch.setattr(lake_files, "FILE_ROWS", 300)
    monkeypatch.setattr("obligor.sequences.asked.UNIT_ROWS", 100)
    lake = lake_of(folder, log, plan)
    lake.compact(whole=True)
    settings = TokenSettings(intervals=4, count_min=2)
    tokenizer = fit_tokenizer(plan, "history", log, _everyone(log), settings)
    for threads in (1, 3):
        again = fit_tokenizer(plan, "history", lake, _everyone(log), settings, threads)
        assert again.canonical == tokenizer.canonical
        asked: list[Questions] = [_asked(log), _everyone(log)]
        for number, questions in enumerate(asked):
            one = write_dataset(tmp_path / f"log-{threads}-{number}", plan, "history", tokenizer, log, questions)
            other = write_dataset(
                tmp_path / f"lake-{threads}-{number}", plan, "history", tokenizer, lake, questions, threads=threads
            )
            mine, theirs = contents(one), contents(other)
            if number:  # the entities come in another order
                assert len(mine) == len(theirs) > 50
                theirs = {one.keys().to_pylist().index(other.keys()[i].as_py()): theirs[i] for i in theirs}
            assert mine == theirs
            assert one.header.pieces < 2 * len(one) + sum(map(len, mine.values())) // 2


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    asked = requests_of(_worlds().requests, twin.application_fields(len(_worlds().requests)))
    folder, log = tmp_path / "d", twin.Log(_worlds().facts)
    with pytest.raises(NotFound, match="no dataset"):
        Dataset.open(folder)
    write_dataset(folder, twin.plan(), twin.NAME, _tokenizer(), log, asked, snapshot={"log": "l"})
    assert set(json.loads((folder / HEADER).read_bytes())["snapshot"]) == {"asked", "log"}
    Dataset.open(folder, plan=twin.plan(), tokenizer=_tokenizer())
    with pytest.raises(Conflict, match="exists"):
        write_dataset(folder, twin.plan(), twin.NAME, _tokenizer(), log, asked)
    with pytest.raises(IntegrityError, match="made with another plan"):
        Dataset.open(folder, plan=twin.plan(2))
    with pytest.raises(IntegrityError, match="made with another tokenizer"):
        Dataset.open(folder, tokenizer=_tokenizer(2))
    with pytest.raises(NotFound, match="applications, not entities"):
        Dataset.open(folder).keys()
    path = column_path(folder, "parts")
    content = path.read_bytes()
    for broken in (content[:-4], content[:60], content.replace(b"'<f4'", b"'<i4'")):
        path.write_bytes(broken)
        with pytest.raises(IntegrityError, match=r"parts\.npy: "):
            Dataset.open(folder)
    path.write_bytes(content)
    (folder / "tokenizer.json").write_bytes(_tokenizer(2).canonical)
    with pytest.raises(IntegrityError, match="not the tokenizer"):
        Dataset.open(folder)
    (folder / HEADER).write_bytes(b'{"format": 9}')
    with pytest.raises(IntegrityError, match="not a dataset's header"):
        Dataset.open(folder)


def test_what_is_not_finished_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests_of(_worlds().requests, twin.application_fields(len(_worlds().requests)))

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("obligor.sequences.writing.os.rename", fail)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(tmp_path / "d", twin.plan(), twin.NAME, _tokenizer(), twin.Log(_worlds().facts), asked)
    assert list(tmp_path.iterdir()) == []


def test_no_question_is_a_dataset_too(tmp_path: Path) -> None:
    asked = requests_of([], twin.application_fields(0))
    made = write_dataset(tmp_path / "d", twin.plan(), twin.NAME, _tokenizer(), twin.Log(_worlds().facts), asked)
    assert (len(made), made.columns.codes.shape, contents(made)) == (0, (0, 11), {})
