"""A search goes on where it was stopped, ends what lags behind, and what it keeps is the best that it has seen."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sequences.training.small import QUICK, source
from tests.sequences.training.test_pretrained import MODEL, START, dataset_of

from obligor.errors import BadInput, ObligorError
from obligor.sequences.training import SequenceClassifier
from obligor.sequences.training.pretrained import pretrained
from obligor.sequences.training.search import BEST, JOURNAL, Range, Trial, pretrained_by_search, search
from obligor.sequences.training.trainer import Diverged, Progress, Step
from obligor.sequences.weights import parse

SPACE = {"x": Range(0.1, 10.0), "shift": (0, 1, 2)}
FIRST = {"x": 5.0, "shift": 2}
LOOKS = 4


def _score(settings: dict[str, Any], step: int) -> float:
    return float((np.log(settings["x"]) ** 2 + settings["shift"]) * (1 + 1 / step))


def _walk(settings: dict[str, Any], own: Path, progress: Progress, seen: Callable[[], None] = lambda: None) -> float:
    """Go through a training whose looks get better step by step, from its last step on where it was stopped."""
    kept = own / "step"
    for step in range(int(kept.read_text()) + 1 if kept.exists() else 1, LOOKS + 1):
        seen()
        score = _score(settings, step)
        progress(Step(step, LOOKS, score, {}, 1, score, score, step))
        own.mkdir(exist_ok=True)
        kept.write_text(str(step))
    return _score(settings, LOOKS)


def _searched(folder: Path, trials: int = 12, seed: int = 0) -> list[Trial]:
    return search(SPACE, FIRST, _walk, folder, trials=trials, seed=seed)


def test_trials_follow_the_seed_and_begin_with_what_is_given(tmp_path: Path) -> None:
    found = _searched(tmp_path / "a")
    assert found == _searched(tmp_path / "b")
    assert found != _searched(tmp_path / "c", seed=1)
    assert found[0] == Trial(FIRST, False, _score(FIRST, LOOKS), LOOKS)
    assert len(found) == 12
    best = min(one.score for one in found if one.score is not None)
    assert best < 0.5 < _score(FIRST, LOOKS)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {JOURNAL}


def test_what_lags_behind_the_median_is_ended_early(tmp_path: Path) -> None:
    found = _searched(tmp_path, trials=20)
    assert not any(one.pruned for one in found[:3])
    assert any(one.pruned for one in found)
    for place, one in enumerate(found):
        over = [other for other in found[:place] if not other.pruned]
        steps = range(1, LOOKS + 1)
        behind = [
            step
            for step in steps
            if len(over) >= 3
            and _score(one.settings, step) > np.median([_score(other.settings, step) for other in over])
        ]
        ended = behind[0] if behind else LOOKS
        assert (one.step, one.score, one.pruned) == (ended, _score(one.settings, ended), bool(behind))


@pytest.mark.parametrize("moment", [1, 2, 7, 13, 18, 29])
def test_a_search_that_was_stopped_goes_on(tmp_path: Path, moment: int) -> None:
    """At any moment: in the first trial, in a later one, before its first look."""
    whole, steps = _searched(tmp_path / "whole"), 0

    def stopping() -> None:
        nonlocal steps
        steps += 1
        if steps == moment:
            raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, FIRST, partial(_walk, seen=stopping), folder, trials=12, seed=0)
    (folder / f"{JOURNAL}.lock").symlink_to(folder / JOURNAL)  # as one that is killed while it writes leaves it
    assert _searched(folder) == whole
    assert _searched(folder, trials=14) == _searched(tmp_path / "whole", trials=14)  # and further, when asked
    assert _searched(folder, trials=5) == whole[:5]


def test_a_trial_that_diverges_ends_itself_alone(tmp_path: Path) -> None:
    def learn(settings: dict[str, Any], own: Path, progress: Progress) -> float:
        if settings["shift"] == 2:
            raise Diverged("no number")
        return _walk(settings, own, progress)

    found = search(SPACE, FIRST, learn, tmp_path, trials=8, seed=0)
    assert found[0] == Trial(FIRST, True, None, 0)
    assert any(not one.pruned for one in found)


def test_the_best_pretraining_is_kept_and_a_stopped_search_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obligor.sequences.training.search.UNPRUNED", 1)
    dataset = dataset_of(tmp_path / "d", START + 10**9)
    model = replace(MODEL, epochs=4, held_share=0.3)
    space = {"rate": Range(1e-3, 2e-2), "hidden": (4, 8)}
    best, learnt = pretrained_by_search(model, dataset, tmp_path / "w", trials=4, space=space)
    trials = learnt.record["search"]
    assert trials[0]["settings"] == {"rate": model.rate, "hidden": model.hidden}
    scores = [one["score"] for one in trials]
    assert learnt.record["best"] == min(scores) < scores[0]
    assert {"rate": best.rate, "hidden": best.hidden} == trials[scores.index(min(scores))]["settings"]
    alone = pretrained(best, dataset, tmp_path / "alone")  # what no search was made for
    assert alone.weights == learnt.weights
    loaded = parse(learnt.weights, hashlib.sha256(learnt.weights).hexdigest())
    assert loaded.config.hidden == best.hidden

    def stopped(step: Callable[[Any, Step], None], at: int) -> Callable[[Any, Step], None]:
        count = 0

        def counted(watch: Any, now: Step) -> None:
            nonlocal count
            step(watch, now)
            count += 1
            if count == at:
                raise KeyboardInterrupt

        return counted

    with monkeypatch.context() as patch:
        name = "obligor.sequences.training.search._Watch.step"
        from obligor.sequences.training.search import _Watch

        patch.setattr(name, stopped(_Watch.step, trials[0]["step"] + 3))
        with pytest.raises(KeyboardInterrupt):
            pretrained_by_search(model, dataset, tmp_path / "again", trials=4, space=space)
    assert (tmp_path / "again" / BEST).is_file()
    assert pretrained_by_search(model, dataset, tmp_path / "again", trials=4, space=space) == (best, learnt)


def test_a_search_needs_something_held_back(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "d", START + 10**9)
    with pytest.raises(BadInput, match="held_share above 0"):
        pretrained_by_search(replace(MODEL, held_share=0.0), dataset, tmp_path, trials=2)


def test_a_search_of_which_nothing_comes_says_so(tmp_path: Path) -> None:
    model = replace(MODEL, rate=1e36)
    with pytest.raises(Diverged, match=r"none of 2 trials .*'rate': 1e\+36.*; try lower rates"):
        pretrained_by_search(
            model,
            dataset_of(tmp_path / "d", START + 10**9),
            tmp_path / "w",
            trials=2,
            space={"rate": Range(1e36, 1e36)},
        )


def test_settings_of_heads_are_searched_alike(tmp_path: Path) -> None:
    data, outcome = source(150, 1)

    def learn(settings: dict[str, Any], _: Path, progress: Progress) -> float:
        trainer = replace(QUICK, epochs=3, rate=settings["rate"])
        model = SequenceClassifier(
            width=4, hidden=4, units=settings["units"], pretrained=False, trainer=trainer, quiet=True, progress=progress
        )
        return model.fit(data, outcome).training_.best or 0.0

    space = {"units": (4, 16), "rate": Range(1e-4, 1e-1)}
    found = search(space, {"units": 4, "rate": 1e-4}, learn, tmp_path, trials=5, seed=0)
    scores = [one.score for one in found if one.score is not None]
    assert min(scores) < scores[0]


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "obligor.sequences.training.search")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ObligorError, match=r"pip install 'obligor\[search\]'"):
        import_module("obligor.sequences.training.search")
