"""Which entities are swept rather than scanned, and what a sweep needs: when rows come and go, by as_of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels import columns as c
from obligor.features.kernels.compiling import entry
from obligor.features.kernels.tiles import Tiles, tiles_for
from obligor.features.layout import OWN_MAX, Layout, Rows, read_only

__all__ = ["STEPS_MAX", "TILED_ROWS_MIN", "Sweep", "prepare", "tiles_of", "worth_sweeping"]

Ints = NDArray[np.int64]

TILED_ROWS_MIN = 2048  # rows of an entity from which tiles pay
STEPS_MAX = 1_000_000  # steps of a decay that partials are kept for
_SEQUENCE_BITS, _SEQUENCE_MAX = 48, 2**48 - 1
_VISIBLE = np.int64(2**63 - 1)


class Sweep(NamedTuple):
    """One entity's rows, and the questions to it in the order of as_of."""

    rows: Rows  # of this entity alone
    questions: Ints  # (n,) places of the requests, in this order
    come: Ints  # (rows,) the first question that a row is visible to; n: none
    go: Ints  # (rows,) the first question that a version above is visible to; n: none
    bounds: Ints  # (n, 2) the rows within the reach of each
    own: Ints  # (n, 2) where the rows of the question's own fact stand in `own_rows`
    own_rows: Ints

    def changes(self, first: int, end: int) -> tuple[Ints, Ints]:
        """Return which rows come and go at which question, for a sweep of the questions [first, end): (k, 2) both."""
        alive = (self.come < self.go) & (self.come < end)
        comings = np.flatnonzero(alive & (self.go > first))
        goings = np.flatnonzero(alive & (self.go > first) & (self.go < end))
        n = len(self.questions)
        return _events(self.come, comings, n), _events(self.go, goings, n)


def _events(when: Ints, rows: Ints, questions: int) -> Ints:
    """Return when some rows come or go, and which, in the order of the questions."""
    out = np.empty((len(rows), 2), np.int64)
    _by_question(when, rows, np.zeros(questions + 1, np.int64), out)
    return read_only(out)


@entry
def _by_question(when: Any, rows: Any, begins: Any, out: Any) -> None:
    """Put rows in the order of their questions, those of one question in their own."""
    for i in range(rows.shape[0]):
        begins[when[rows[i]] + 1] += 1
    for question in range(1, begins.shape[0]):
        begins[question] += begins[question - 1]
    for i in range(rows.shape[0]):
        question = when[rows[i]]
        place = begins[question]
        out[place, 0], out[place, 1] = question, rows[i]
        begins[question] += 1


def worth_sweeping(rows: Ints, questions: Ints) -> NDArray[np.bool_]:
    """Return which entities, by their numbers of rows and questions, are cheaper to sweep than to scan."""
    worth: NDArray[np.bool_] = (rows >= TILED_ROWS_MIN) & (questions >= 4)
    return worth


def prepare(
    rows: Rows, entity: int, questions: Ints, as_of: Ints, self_root: Ints, cuts: Ints, reach: int
) -> Sweep | None:
    """Return the sweep of one entity; None where the cuts do not grow with as_of, so that rows would come and go again.

    `as_of`, `self_root` and `cuts` are those of all requests, `questions` the places of those to this entity.
    """
    order = np.lexsort((cuts[questions, 0] if len(cuts) > 1 and cuts.shape[1] else questions, as_of[questions]))
    questions = questions[order]
    instants = as_of[questions]
    own_cuts = cuts[questions] if len(cuts) > 1 else cuts
    if len(own_cuts) > 1 and bool((np.diff(own_cuts, axis=0) < 0).any()):
        return None
    low, high = int(rows.offsets[entity]), int(rows.offsets[entity + 1])
    own = _slice(rows, low, high)
    come = _first_visible(own.position, own.known, instants, own_cuts)
    go = np.full(high - low, len(questions), np.int64)
    versioned = np.flatnonzero(own.version >= 0)
    if len(versioned):
        starts, ends = rows.above_start[own.version[versioned]], rows.above_end[own.version[versioned]]
        sizes = ends - starts
        offsets = np.cumsum(sizes) - sizes
        listed = np.repeat(starts - offsets, sizes) + np.arange(int(sizes.sum()))
        above = _first_visible(rows.above_position[listed], rows.above_known[listed], instants, own_cuts)
        some = sizes > 0
        if some.any():
            go[versioned[some]] = np.minimum.reduceat(above, offsets[some])
    ends = np.searchsorted(own.event_time, instants)
    starts = np.searchsorted(own.event_time, instants - reach)
    by_root = np.empty(0, np.int64)
    first = last = np.zeros(len(questions), np.int64)
    if (self_root[questions] >= 0).any():
        by_root = np.argsort(own.root, kind="stable")
        ranked = own.root[by_root]
        first, last = (np.searchsorted(ranked, self_root[questions], side) for side in ("left", "right"))
    if int((last - first).max(initial=0)) > OWN_MAX:
        return None
    bounds = np.column_stack([starts, ends]).astype(np.int64)
    own_bounds = np.column_stack([first, last]).astype(np.int64)
    by_root = read_only(by_root.astype(np.int64))
    return Sweep(own, questions, come, go, read_only(bounds), read_only(own_bounds), by_root)


def _first_visible(position: Ints, known: Ints, instants: Ints, cuts: Ints) -> Ints:
    """Return the first question, by as_of and cut, that sees each row."""
    first: Ints = np.searchsorted(instants, known).astype(np.int64)
    if cuts.shape[1] == 0:
        return first
    shard, sequence = position >> _SEQUENCE_BITS, position & _SEQUENCE_MAX
    for one in range(cuts.shape[1]):
        rows = shard == one
        if len(cuts) == 1:
            first[rows & (sequence > cuts[0, one])] = len(instants)
        else:
            first[rows] = np.maximum(first[rows], np.searchsorted(cuts[:, one], sequence[rows]))
    first[shard >= cuts.shape[1]] = len(instants)
    return first


def _slice(rows: Rows, low: int, high: int) -> Rows:
    """Return the rows [low, high) as those of one entity; what ranks above stays listed as it is."""
    cut: dict[str, Any] = {
        name: read_only(getattr(rows, name)[low:high])
        for name in ("event_time", "known", "position", "root", "mask", "version")
    }
    return rows._replace(
        offsets=read_only(np.array([0, high - low], np.int64)),
        values=read_only(np.ascontiguousarray(rows.values[:, low:high])),
        **cut,
    )


def tiles_of(layout: Layout, source: int, rows: int, span: tuple[int, int], ahead: int = 0) -> Tiles | None:
    """Return tiles for so many rows from one event_time to another; None where a decay's steps are too fine to be kept.

    `ahead` steps more are kept for later rows.
    """
    spec = layout.sources[source]
    spans = []
    for at in range(spec[c.S_LADDERS], spec[c.S_LADDERS_END]):
        for p in range(layout.ladders[at, c.L_PASSES], layout.ladders[at, c.L_PASSES_END]):
            if layout.passes[p, c.P_KIND] == c.DECAYED and layout.passes[p, c.P_TILE] >= 0:
                step_us = int(layout.passes[p, c.P_STEP_US])
                spans.append((span[0] // step_us, span[1] // step_us + ahead))
    if any(last - first >= STEPS_MAX for first, last in spans):
        return None
    words, dense_words, dense = (int(spec[column]) for column in (c.S_TILE_WORDS, c.S_DENSE_WORDS, c.S_DENSE))
    return tiles_for(rows, words, dense_words, dense, spans)
