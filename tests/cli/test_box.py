"""What a deployment in a box is made of, before anything is started; that it runs is shown in `test_up`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Run

import obligor
from obligor.cli.box import FOLDER, SHARDS, Box
from obligor.cli.local_servers import missing
from obligor.errors import ObligorError
from obligor.events.personal import KEY_FILE

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {', '.join(missing())}: pip install 'obligor[box]'")


def test_a_box_is_a_project_of_the_same_files_and_other_servers(copy: Path) -> None:
    project = obligor.open(copy)
    box = Box(project, 18_080, no_keys=True, told=lambda line: None)
    try:
        box._link()
        box._write_settings()
        boxed = obligor.open(copy / FOLDER)
        assert boxed.plan.hash == project.plan.hash
        assert boxed.bundle().hash == project.bundle().hash
        assert (boxed.root / "events.py").resolve() == (copy / "events.py").resolve()
        settings = boxed.settings
        assert (settings.zone, settings.server.port) == (project.settings.zone, 18_080)
        assert settings.store.log == box.postgres.url("box")
        assert settings.store.state.startswith("redis://127.0.0.1:")
        assert Path(settings.store.key) == copy / "store" / "log", "the log is a copy, and so has the same key"
        assert settings.shards is not None
        assert len(settings.shards.writers) == SHARDS
        assert settings.kafka is not None
        settings.kafka.check()
        assert not (copy / FOLDER / "store").exists()
    finally:
        shutil.rmtree(box.postgres.folder)


def test_a_box_with_a_log_of_its_own_has_its_own_key(copy: Path) -> None:
    shutil.rmtree(copy / "store")
    box = Box(obligor.open(copy), 18_080, no_keys=True, told=lambda line: None)
    try:
        assert box._key_folder() == "key"
        (copy / FOLDER / "key").mkdir()
        (copy / FOLDER / "key" / KEY_FILE).write_text("its own")
        (copy / "store" / "log").mkdir(parents=True)
        (copy / "store" / "log" / KEY_FILE).write_text("of a log that came later")
        assert box._key_folder() == "key"
    finally:
        shutil.rmtree(box.postgres.folder)


def test_a_server_that_does_not_start_says_why(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(obligor.open(copy), 18_080, no_keys=True, told=lambda line: None)
    try:
        (box.postgres.data / "postgresql.conf").write_text("no such setting = 1\n")
        monkeypatch.setattr("obligor.cli.local_servers.SECONDS_MAX", 1.0)
        with pytest.raises(ObligorError, match=r"postgres does not answer(.|\n)*syntax error"):
            box.postgres.start()
        assert not box.postgres.running
    finally:
        box.postgres.kill()
        shutil.rmtree(box.postgres.folder)


def test_a_project_without_a_champion_is_refused_before_anything_starts(run: Run, tmp_path: Path) -> None:
    run("init", str(tmp_path / "lender"))
    assert "obligor train" in run("up", "--project", str(tmp_path / "lender"), code=4)
    assert not (tmp_path / "lender" / FOLDER).exists()
