"""The engine in process: every task's outcome, the failures of disks among them."""

from __future__ import annotations

import pytest

from obligor.features.engine import LocalEngine


def test_each_task_has_its_outcome() -> None:
    def work(task: str) -> str:
        if task == "lost":
            raise FileNotFoundError("the disk is gone")
        return task.upper()

    found = {one.place: one for one in LocalEngine(work, 2).carry_out(["a", "lost", "b"])}
    assert (found[0].report, found[2].report, found[1].report) == ("A", "B", None)
    assert "the disk is gone" in str(found[1].failure)
    assert list(LocalEngine(work, 0).carry_out([])) == []


def test_what_no_disk_did_is_raised() -> None:
    def work(task: str) -> str:
        raise ZeroDivisionError(task)

    with pytest.raises(ZeroDivisionError, match="a"):
        list(LocalEngine(work, 2).carry_out(["a", "b"]))
