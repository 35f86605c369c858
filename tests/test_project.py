"""Opening lender projects, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path

import pytest

import obligor
from obligor.cli.projects import write_template
from obligor.errors import BadInput, DefinitionError, NotFound
from obligor.features import state
from obligor.features.lake import Lake
from obligor.features.plan import Plan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_template(tmp_path / "lender")
    return tmp_path / "lender"


def test_the_template_is_whole(root: Path) -> None:
    project = obligor.open(root)
    assert project.application.event_name == "loan_application"
    assert len(project.plan.features) >= 40
    assert project.outcome.horizon_us == 120 * 86_400_000_000
    assert project.check_policy(project.policy).rungs == ("full", "scorecard", "refer")
    assert project.model.champion == "xgboost"


def test_two_projects_do_not_share_modules(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_template(other)
    (other / "events.py").write_text((root / "events.py").read_text().replace("class Dispute", "class Quarrel"))
    (other / "features.py").write_text((root / "features.py").read_text().replace("Dispute", "Quarrel"))
    assert "dispute" in obligor.open(root).registry
    assert "dispute" not in obligor.open(other).registry
    assert "quarrel" in obligor.open(other).registry


def test_a_folder_without_settings_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"obligor\.toml"):
        obligor.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zone = 5", r"\$\.zone: obligor\.toml: Expected `str`, got `int`"),
        ("[server]\nprot = 1", r"\$\.server: .*unknown field `prot`"),
        ("zone = ", "not valid TOML"),
    ],
)
def test_wrong_settings_are_named(root: Path, text: str, message: str) -> None:
    (root / "obligor.toml").write_text(text)
    with pytest.raises(BadInput, match=message):
        obligor.open(root)


def test_definitions_that_are_missing_are_named(root: Path) -> None:
    (root / "events.py").write_text("")
    (root / "model.py").write_text("model = 5\n")
    (root / "outcomes.py").unlink()
    project = obligor.open(root)
    with pytest.raises(DefinitionError, match="declares no event class"):
        _ = project.registry
    with pytest.raises(DefinitionError, match=r"model = Model\(\.\.\.\)"):
        _ = project.model
    with pytest.raises(NotFound, match=r"outcomes\.py is missing"):
        _ = project.outcome


def test_what_is_not_there_yet_says_how_to_make_it(root: Path) -> None:
    project = obligor.open(root)
    with pytest.raises(NotFound, match="obligor ingest"):
        project.log(read_only=True)
    with pytest.raises(NotFound, match="obligor train"):
        project.bundle()
    with pytest.raises(NotFound, match="no single bundle"):
        project.bundle("0123456789")
    assert dict(project.all_bundles()) == {}
    with pytest.raises(KeyError):
        project.all_bundles()["0123"]


def test_the_log_is_created_by_its_first_writer(root: Path) -> None:
    project = obligor.open(root)
    with project.log() as log:
        name = log.id
    with project.log(read_only=True) as log:
        assert log.id == name


def test_a_state_is_filled_from_the_lake_of_its_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[set[tuple[str, ...]]] = []
    covers = Lake.covers

    def noted(lake: Lake, plan: Plan) -> bool:
        looked.append({table.entities for table in lake.tables()})
        return covers(lake, plan)

    monkeypatch.setattr(Lake, "covers", noted)
    monkeypatch.setattr(state, "FILLED_EVENTS_MIN", 0)
    project = obligor.open(root)
    with project.log() as log:
        project.lake(log).update([("consumer",)])
        online = project.state(project.plan)
        online.catch_up(log)
        online.close()
    assert looked == [{("consumer",)}]


def test_a_lake_may_lie_in_object_storage(root: Path) -> None:
    settings = root / "obligor.toml"
    before = settings.read_text()
    in_storage = before.replace("[store]", '[store]\nlake = "s3://bucket/lake"')
    settings.write_text(in_storage + '\n[store.s3]\nendpoint = "http://127.0.0.1:9"\n')
    project = obligor.open(root)
    assert project.address(project.settings.store.lake) == "s3://bucket/lake"
    assert project.address("store/lake") == str(root / "store" / "lake")
    assert project.settings.store.s3.endpoint == "http://127.0.0.1:9"
    settings.write_text(before + '\n[store.s3]\nendpoint = "http://me:my-secret@host"\n')
    with pytest.raises(BadInput, match=r"\$\.store\.s3: .*without credentials in it") as refused:
        obligor.open(root)
    assert "my-secret" not in str(refused.value)
    settings.write_text(before + '\n[store.s3]\naccess_key = "x"\n')
    with pytest.raises(BadInput, match="unknown field `access_key`"):
        obligor.open(root)
