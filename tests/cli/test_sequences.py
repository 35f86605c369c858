"""`obligor pretrain`, `embed`, `encoders`: what is learnt is what was known, and a vector is what streaming gives."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import Run
from tests.tracking.recorded import client_of, curve_of, runs_of

import obligor
from obligor.cli.sequences import Means, _alone, pretrain_project
from obligor.cli.snapshots import snapshot_of
from obligor.errors import Conflict, DefinitionError
from obligor.features.requests import Requests
from obligor.sequences.asked import Everyone, Questions
from obligor.sequences.dataset import Dataset
from obligor.sequences.loading import filled
from obligor.sequences.model import SequenceModel
from obligor.sequences.pretrained import Pretrained
from obligor.sequences.training import checkpoint, trainer
from obligor.sequences.writing import write_dataset

CUTOFF = "2026-09-01"
SEQUENCE = """
from obligor.features import Sequence

history = Sequence.by("consumer", [BankTransaction, Purchase, Repayment, LoanOpened, AppVisit])
"""
NUMBERS = '{"gap": "periodic", "repayment.amount": "periodic", "purchase.amount": "bins"}'
MODEL = f"""
from obligor.sequences import SequenceModel

encoder = SequenceModel(
    sequence="history", cutoff="2026-09-01", hidden=8, width=8, epochs=2, steps_min=0, tokens_max=2000, held_share=0.2,
    numbers={NUMBERS},
)
"""


@pytest.fixture(scope="module")
def raw(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated history of a few consumers."""
    folder = tmp_path_factory.mktemp("worlds") / "raw"
    run("simulate", str(folder), "--consumers", "40", "--days", "150", "--seed", "3", "--end", "2026-11-01")
    return folder


def _project(run: Run, folder: Path, raw: Path) -> Path:
    run("init", str(folder))
    for name, more in (("features.py", SEQUENCE), ("model.py", MODEL)):
        path = folder / name
        path.write_text(path.read_text() + more)
    run("ingest", *sorted(str(path) for path in raw.glob("*.parquet")), "--declared", "--project", str(folder))
    return folder


@pytest.fixture(scope="module")
def project(run: Run, raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an encoder that has been pretrained."""
    folder = _project(run, tmp_path_factory.mktemp("sequences") / "lender", raw)
    run("pretrain", "--project", str(folder))
    return folder


def _with_stranger(visits: Path, to: Path) -> None:
    """Write app visits and, as late as the last of them, one of somebody else, whose key comes before all others."""
    table = pq.read_table(visits)
    last = table.sort_by("occurred_at").slice(len(table) - 1).combine_chunks()
    for name in ("consumer", "id"):
        place = last.column_names.index(name)
        last = last.set_column(place, table.schema.field(name), pa.array(["0-stranger"], table.schema.field(name).type))
    pq.write_table(pa.concat_tables([table, last]), to)


def _encoder(folder: Path) -> Pretrained:
    return obligor.open(folder).encoders.load()


def test_pretraining_leaves_one_encoder_that_says_what_it_is_of(run: Run, project: Path) -> None:
    first = _encoder(project)
    again = run("pretrain", "--project", str(project), "--json")
    assert again["encoder"] == first.hash
    assert list((project / "store" / "pretraining").iterdir()) == []
    opened = obligor.open(project)
    with opened.log(read_only=True) as log:
        expected = {**snapshot_of(log, log.cut()), "cutoff_us": 1_788_213_600_000_000}  # midnight in Berlin
    training = again["training"]
    assert training["snapshot"] == expected
    assert training["plan"] == opened.plan.hash
    assert training["learnt"]["held"] > 0
    assert training["learnt"]["curve"][-1]["step"] == training["learnt"]["steps"] > 2
    [held] = run("encoders", "--project", str(project), "--json")
    assert held == {
        "encoder": first.hash, "sequence": "history", "kind": "gru", "hidden": 8, "vector": 58, "cutoff": CUTOFF,
        "events": training["learnt"]["events"], "current": True,
    }  # fmt: skip


def test_nothing_later_than_the_cut_off_is_learnt(run: Run, project: Path, raw: Path, tmp_path: Path) -> None:
    other = tmp_path / "raw"
    shutil.copytree(raw, other)
    for path in other.glob("*.parquet"):
        table = pq.read_table(path)
        early = pc.less(table["received_at"], datetime(2026, 9, 2, tzinfo=UTC))
        pq.write_table(table.filter(early), path)
    _with_stranger(other / "app_visit.parquet", other / "app_visit.parquet")
    folder = _project(run, tmp_path / "lender", other)
    run("pretrain", "--project", str(folder))
    one, two = _encoder(project), _encoder(folder)
    assert one.tokenizer.canonical == two.tokenizer.canonical
    assert one.weights.sha256 == two.weights.sha256
    assert one.training["learnt"] == two.training["learnt"]
    assert one.training["snapshot"] != two.training["snapshot"]
    run("lake", "update", "--project", str(folder))  # another order of entities
    run("pretrain", "--project", str(folder))
    assert _encoder(folder).hash == two.hash
    run("pretrain", "--project", str(folder), "--cutoff", "2026-09-03")  # a control: a day that differs
    assert _encoder(folder).tokenizer.canonical != one.tokenizer.canonical
    assert _encoder(folder).weights.sha256 != one.weights.sha256
    assert len(run("encoders", "--project", str(folder), "--json")) == 2


def test_a_run_that_was_broken_off_goes_on(
    run: Run, project: Path, raw: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = Path(shutil.copytree(project, tmp_path / "lender"))
    often = partial(trainer.TrainerConfig, checkpoint_steps=2)
    monkeypatch.setattr("obligor.sequences.training.pretrained.TrainerConfig", often)
    opened = obligor.open(folder)
    arguments: Any = {"cutoff": None, "epochs": None, "means": Means(), "quiet": True}
    write = checkpoint.write_checkpoint

    def killed(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    whole = pretrain_project(opened, **arguments)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain_project(opened, **arguments)
    [work] = (folder / "store" / "pretraining").iterdir()
    assert {entry.name for entry in work.iterdir()} == {"run.json", "dataset", "pretraining.safetensors"}
    with _alone(work), pytest.raises(Conflict, match="another process is at this pretraining"):
        pretrain_project(opened, **arguments)
    _with_stranger(raw / "app_visit.parquet", tmp_path / "app_visit.parquet")  # the log goes on meanwhile
    run("ingest", str(tmp_path / "app_visit.parquet"), "--declared", "--project", str(folder))
    steps: list[int] = []
    with monkeypatch.context() as patch:
        learn = trainer._Run.learn

        def counted(run: trainer._Run, found: trainer.Loss) -> None:
            steps.append(run.step)
            learn(run, found)

        patch.setattr(trainer._Run, "learn", counted)
        patch.setattr("obligor.sequences.fitting.fit_tokenizer", None)
        assert pretrain_project(opened, **arguments).hash == whole.hash
    assert steps == list(range(2, whole.training["learnt"]["steps"]))
    assert not work.exists()


def test_a_pretraining_is_recorded_as_one_run_whether_it_was_broken_off_or_not(
    run: Run, project: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = Path(shutil.copytree(project, tmp_path / "lender"))
    settings = folder / "obligor.toml"
    settings.write_text(settings.read_text() + '\n[tracking]\nmlflow = "runs.db"\nexperiment = "encoders"\n')
    with monkeypatch.context() as patch:
        patch.setattr("obligor.project.Project.encoders", None)
        assert run("pretrain", "--project", str(folder), code=1) is not None  # broken off once it has learnt
    run("pretrain", "--project", str(folder))
    held = _encoder(folder)
    assert held.hash == _encoder(project).hash
    client = client_of(folder / "runs.db")
    [found] = runs_of(client, "encoders")
    assert (found.info.run_name, found.info.status) == ("pretrain", "FINISHED")
    training, tags = held.training, found.data.tags
    expected = {**training["snapshot"], "plan": training["plan"], "encoder": held.hash}
    assert {"log", "cut", "chain", "cutoff_us"} <= set(expected)
    for name, value in expected.items():
        assert tags[f"obligor.{name}"] == (value if isinstance(value, str) else json.dumps(value))
    assert found.data.params["hidden"] == "8"
    learnt = training["learnt"]
    assert sorted({*curve_of(client, found, "held_back")}) == [
        (look["step"], look["score"]) for look in learnt["curve"]
    ]
    assert sorted({step for step, _ in curve_of(client, found, "loss")}) == list(range(1, learnt["steps"] + 1))
    assert found.data.metrics["best"] == learnt["best"]
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert names == {"manifest.json", "training.json", "tokenizer.json"}
    manifest = client.download_artifacts(found.info.run_id, "manifest.json", str(tmp_path))
    assert hashlib.sha256(Path(manifest).read_bytes()).hexdigest() == held.hash


def test_a_search_keeps_the_best_of_its_encoders(run: Run, project: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(project, tmp_path / "lender"))
    found = run("pretrain", "--project", str(folder), "--search", "3", "--json")
    training, trials = found["training"], found["training"]["learnt"]["search"]
    assert trials[0] == {
        "settings": {"rate": SequenceModel.rate, "width": 8, "hidden": 8}, "pruned": False,
        "score": _encoder(project).training["learnt"]["best"], "step": _encoder(project).training["learnt"]["steps"],
    }  # fmt: skip
    best = min(trials, key=lambda one: one["score"])
    assert {name: training["model"][name] for name in best["settings"]} == best["settings"]
    assert len(trials) == 3
    assert training["learnt"]["best"] == best["score"] < trials[0]["score"]
    assert _encoder(folder).hash == found["encoder"] != _encoder(project).hash
    assert _encoder(folder).weights.config.hidden == best["settings"]["hidden"]
    assert list((folder / "store" / "pretraining").iterdir()) == []


@pytest.mark.skipif("OBLIGOR_SOAK" not in os.environ, reason="half a minute: with OBLIGOR_SOAK=1")
def test_several_processes_learn_an_encoder(run: Run, project: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(project, tmp_path / "lender"))
    settings = folder / "obligor.toml"
    settings.write_text(settings.read_text() + '\n[tracking]\nmlflow = "runs.db"\n')
    found = run("pretrain", "--project", str(folder), "--workers", "2", "--json")
    alone = _encoder(project).training
    assert found["training"] == {**alone, "workers": 2, "learnt": found["training"]["learnt"]}
    assert found["training"]["learnt"]["entities"] == alone["learnt"]["entities"]
    assert found["training"]["learnt"]["steps"] == 2 * -(-alone["learnt"]["steps"] // 4)  # two epochs of half the steps
    assert _encoder(folder).weights.sha256 != _encoder(project).weights.sha256
    client = client_of(folder / "runs.db")
    [recorded] = runs_of(client, "lender")
    assert recorded.data.params["workers"] == "2"
    assert [step for step, _ in curve_of(client, recorded, "loss")] == list(
        range(1, found["training"]["learnt"]["steps"] + 1)
    )
    ray = sys.modules["ray"]
    ray.shutdown()


def _streamed(held: Pretrained, dataset: Dataset, place: int) -> bytes:
    """Return the vector of one slice, event by event."""
    length = dataset.columns.length[[place]].astype(np.int64)
    batch = filled(dataset, np.array([place]), np.zeros(1, np.int64), length)
    state = held.encoder.start()
    for i in range(int(length[0])):
        held.encoder.advance(state, batch.codes[0, i : i + 1], batch.parts[0, i : i + 1], batch.time[0, i : i + 1])
    return held.encoder.readout(state, int(batch.as_of[0])).tobytes()


def _vectors(table: pa.Table) -> list[bytes]:
    return [np.array(one, np.float64).tobytes() for one in table["vector"].to_pylist()]


@pytest.mark.parametrize("parts", [50, 1 << 20])
def test_vectors_are_what_streaming_gives(
    run: Run, project: Path, tmp_path: Path, monkeypatch: Any, parts: int
) -> None:
    monkeypatch.setattr("obligor.sequences.embedding.PART_TOKENS", parts)
    held, opened, to = _encoder(project), obligor.open(project), tmp_path / "v.parquet"
    said = run("embed", "--project", str(project), "--as-of", CUTOFF, "--to", str(to), "--json")
    table = pq.read_table(to)
    assert table.schema.field("vector").type == pa.list_(pa.float64(), 58)
    assert said["rows"] == len(table) > 20
    with opened.log(read_only=True) as log:
        at: Questions = Everyone(1_788_220_800_000_000, log.cut())
        dataset = write_dataset(tmp_path / "e", opened.plan, "history", held.tokenizer, log, at)
        expected = {
            key: _streamed(held, dataset, place)
            for place, key in enumerate(dataset.keys().to_pylist())
            if dataset.columns.length[place]
        }
        assert table["key"].to_pylist() == sorted(expected)
        assert dict(zip(table["key"].to_pylist(), _vectors(table), strict=True)) == expected
        run("embed", "--project", str(project), "--applications", "--to", str(to), "--threads", "2")
        table = pq.read_table(to)
        rows = log.facts("loan_application").rows
        asked = _requests(opened, log, rows)
        dataset = write_dataset(tmp_path / "a", opened.plan, "history", held.tokenizer, log, asked)
    assert table["application_id"].to_pylist() == rows["event_id"].to_pylist()
    assert table["as_of"].cast(pa.int64()).to_pylist() == rows["known"].to_pylist()
    place = np.argsort(dataset.columns.question)
    assert _vectors(table) == [_streamed(held, dataset, one) for one in place]
    assert len(set(_vectors(table))) == len(table) > 50


def _requests(opened: Any, log: Any, rows: pa.Table) -> Requests:
    """Return the applications as questions about any moment are read."""
    table = rows.append_column("at", rows["known"].cast(pa.timestamp("us", "UTC")))
    table = table.drop_columns(["position", "known", "root", "event_time"])
    found: Requests = opened.features.requests(log, table, "at", application="event_id", plan=opened.plan)
    return found


def test_the_lake_gives_the_same_vectors(run: Run, project: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(project, tmp_path / "lender"))
    tables = []
    for number in range(2):
        own = []
        for more in ([], ["--applications"]):
            to = tmp_path / f"{number}.parquet"
            run("embed", "--project", str(folder), "--encoder", _encoder(folder).hash[:8], "--to", str(to), *more)
            own.append(pq.read_table(to))
        tables.append(own)
        run("lake", "update", "--project", str(folder))
    assert all(one.equals(two) for one, two in zip(*tables, strict=True))


def test_embedding_needs_no_torch_and_pretraining_says_so(project: Path, tmp_path: Path) -> None:
    script = """
import sys
sys.modules["torch"] = None
from obligor.cli.app import app
for command in sys.argv[2:]:
    code = app([*command.split(), "--project", sys.argv[1]], standalone_mode=False)
    print(command.split()[0], code or 0, sum(name.split(".")[0] == "torch" for name in sys.modules))
"""
    to = tmp_path / "v.parquet"
    done = subprocess.run(
        [sys.executable, "-c", script, str(project), f"embed --to {to}", "encoders", "pretrain"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert "embed 0 1" in lines, done.stderr
    assert "encoders 0 1" in lines
    assert len(pq.read_table(to)) > 30
    assert "pip install 'obligor[sequences]'" in done.stderr.replace("\n", "")
    assert [line for line in lines if line.startswith("pretrain")] != ["pretrain 0 1"]


def test_mistakes_are_named(run: Run, project: Path, tmp_path: Path) -> None:
    at = ("--project", str(project))
    assert "no single encoder 'beef'" in run("embed", *at, "--encoder", "beef", "--to", "v.parquet", code=4)
    assert ".parquet" in run("embed", *at, "--to", "v.csv", code=3)
    assert "a folder that exists" in run("embed", *at, "--to", str(tmp_path / "none" / "v.parquet"), code=3)
    said = " ".join(run("pretrain", *at, "--search", "2", "--workers", "2", code=3).split())
    assert "--workers: expected 1 with --search, got 2" in said
    assert "write the best settings that it shows into model.py, then pretrain with --workers 2" in said
    assert "--workers" in run("pretrain", *at, "--cluster", "auto", code=3)
    assert "--as-of" in run("embed", *at, "--applications", "--as-of", CUTOFF, "--to", "v.parquet", code=3)
    folder = tmp_path / "lender"
    run("init", str(folder))
    with pytest.raises(DefinitionError, match=r"expected encoder = SequenceModel\(\.\.\.\)"):
        _ = obligor.open(folder).encoder_model
    assert "pretrain one first" in run("embed", "--project", str(folder), "--to", "v.parquet", code=4)
    for name, more in (("features.py", SEQUENCE), ("model.py", MODEL.replace('"history"', '"histroy"'))):
        (folder / name).write_text((folder / name).read_text() + more)
    twin = Path(shutil.copytree(folder, tmp_path / "twin"))
    said = run("pretrain", "--project", str(twin), code=3).replace("\n", " ")
    assert "no sequence 'histroy'; did you mean 'history'?" in said
    for place, numbers, wrong in (
        ("one", "{'gaps': 'bins'}", "numbers['gaps']: no number of 'history'; did you mean 'gap'?"),
        ("two", "'wavy'", "SequenceModel.numbers: 'wavy'; valid: bins, periodic, piecewise"),
    ):
        other = Path(shutil.copytree(folder, tmp_path / place))
        text = (other / "model.py").read_text().replace("histroy", "history").replace(NUMBERS, numbers)
        (other / "model.py").write_text(text)
        assert wrong in run("pretrain", "--project", str(other), code=3).replace("\n", " ")


def test_a_changed_byte_is_refused(run: Run, project: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(project, tmp_path / "lender"))
    path = _encoder(folder).path / "training.json"
    path.write_bytes(path.read_bytes().replace(b'"epochs":2', b'"epochs":3'))
    assert json.loads(path.read_bytes())["model"]["epochs"] == 3
    assert "training.json" in run("encoders", "--project", str(folder), code=5)
