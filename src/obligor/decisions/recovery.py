"""The recovery: online state that went away is brought back beside the writer, which goes on without it.

A store that is far away can be gone, hang, or come back empty. The writer then has nothing to do with it any more: the
recovery's own thread reaches for it, takes it again, and applies what the log holds beyond it, all of the log where it
is empty. When little is missing the writer takes it back, between two batches, and applies the rest itself.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from obligor.decisions.watch import giving_way
from obligor.events.log import EventLog
from obligor.events.positions import Cut
from obligor.features.state import OnlineState, StateMisfit
from obligor.features.state_store import StateBusy, StateGone, StateTaken

__all__ = ["REMAINDER_EVENTS_MAX", "Recovery"]

_log = logging.getLogger("obligor.state")

PAUSE_S = 0.2  # until a store that was not there is tried again
REMAINDER_EVENTS_MAX = 2_000  # that are left to the writer: as many as one batch may hold


class _Stopped(Exception):
    """Somebody has called `stop`."""


class Recovery:
    """Brings one state back, from its making until it is `done` or stopped; meanwhile nobody else may touch it."""

    def __init__(self, log: EventLog, state: OnlineState) -> None:
        self.done = False
        self.reached: Cut = {}  # what the state stands for when it is done
        self._log, self._state = log, state
        self._misfit = False  # the log did not fit what the state was, which may have come from the lake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="obligor-recovery", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give up, after the step under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        said = ""
        while not self._stopping.is_set():
            try:
                with giving_way():
                    self._catch_up()
                self.done = True
                _log.warning("the online state is back; decisions rest on it again")
                return
            except _Stopped:
                return
            except StateTaken as error:
                _log.critical("decisions go on without online state until this service is started again: %s", error)
                return
            except (StateGone, StateBusy, StateMisfit) as error:
                if str(error) != said:
                    said = str(error)
                    _log.error("the online state is not back yet: %s", error)
                self._clear_after(error)
            self._stopping.wait(PAUSE_S)

    def _catch_up(self) -> None:
        """Apply the log until little is missing; it may grow meanwhile."""
        self._state.forget()
        while True:
            self.reached = self._state.catch_up(self._log, progress=self._progress, from_lake=not self._misfit)
            if sum(self._log.cut().values()) - sum(self.reached.values()) <= REMAINDER_EVENTS_MAX:
                return

    def _progress(self, done: int, of: int) -> None:
        if self._stopping.is_set():
            raise _Stopped

    def _clear_after(self, error: Exception) -> None:
        """Have a state that came back with other rows than the log's built from the beginning, and of that alone."""
        if isinstance(error, StateMisfit):
            self._misfit = True
            with suppress(StateGone):  # it is looked at again
                self._state.clear()
