"""Which entities are swept rather than scanned, and what a sweep needs: when rows come and go, by as_of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels import columns as c
from obligor.features.kernels.cells import near
from obligor.features.kernels.compiling import entry, inlined
from obligor.features.kernels.integers import INT64_MAX
from obligor.features.kernels.tiles import Tiles, tiles_for
from obligor.features.layout import OWN_MAX, Layout, Rows, read_only

__all__ = ["STEPS_MAX", "TILED_ROWS_MIN", "Stretch", "Sweep", "prepare", "stretch", "tiles_of", "worth_sweeping"]

Ints = NDArray[np.int64]

TILED_ROWS_MIN = 2048  # rows of an entity from which tiles pay
STEPS_MAX = 1_000_000  # steps of a decay that partials are kept for
_SEQUENCE_BITS, _SEQUENCE_MAX = 48, 2**48 - 1
_MIX, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)  # the golden ratio's, as in Knuth's multiplicative hashing


class Sweep(NamedTuple):
    """One entity's rows, and the questions to it in the order of as_of."""

    rows: Rows  # of this entity alone
    questions: Ints  # (n,) places of the requests, in this order
    as_of: Ints  # (n,)
    cuts: Ints  # (n or 1, shards), which grow with as_of
    self_root: Ints  # (n,), of no length where no question is about an application
    reach: int


class Stretch(NamedTuple):
    """What some consecutive questions of a sweep begin with, and what changes from one to the next.

    Only rows that one of them reaches are in it. A row that is visible to all of them that reach it is there from the
    outset, whenever it came: most rows are known before anybody asks what they are part of.
    """

    low: int
    high: int  # of the rows [low, high)
    masks: Ints  # (rows,) 0 where a row is not there from the outset
    changes: Ints  # (k, 2) a question, and the row that comes before it, ~row of one that goes; in this order
    own: Ints  # (n, 2) where the rows of the question's own fact stand in `own_rows`
    own_rows: Ints


def stretch(sweep: Sweep, first: int, end: int) -> Stretch | None:
    """Return what the questions [first, end) need; None where one's own fact has too many versions."""
    rows, as_of = sweep.rows, sweep.as_of[first:end]
    low, high = np.searchsorted(rows.event_time, [as_of[0] - sweep.reach, as_of[-1]]).tolist()
    own = _own(rows.root, low, high, sweep.self_root[first:end], end - first)
    if own is None:
        return None
    masks = np.zeros(len(rows.mask), np.int64)  # memory that no row of the stretch lies in is never touched
    found = np.empty((2 * (high - low), 2), np.int64)
    cuts = sweep.cuts if len(sweep.cuts) == 1 else sweep.cuts[first:end]
    found = found[: _begin(rows, as_of, cuts, low, high, masks, found)]
    changes = np.empty_like(found)
    _by_question(found, np.zeros(end - first + 1, np.int64), changes)
    return Stretch(low, high, masks, read_only(changes), *own)


@inlined
def _seen(known: Any, position: Any, as_of: Any, cut: Any) -> Any:
    """Whether a version is visible to a question; a cut of no shards is one that every version is in."""
    shard = position >> _SEQUENCE_BITS
    return known <= as_of and (cut.shape[0] == 0 or (shard < cut.shape[0] and position & _SEQUENCE_MAX <= cut[shard]))


@inlined
def _first_to_see(known: Any, position: Any, as_of: Any, cuts: Any, start: Any) -> Any:
    """The first question from `start` on that a version is visible to, their number if none: what is seen stays so."""
    if _seen(known, position, as_of[start], cuts[start if cuts.shape[0] > 1 else 0]):
        return start
    high = as_of.shape[0]
    low = near(as_of, known, start, high, start)
    if low < high and _seen(known, position, as_of[low], cuts[low if cuts.shape[0] > 1 else 0]):
        return low
    while low < high:  # it is the cut that holds it back
        middle = (low + high) >> 1
        if _seen(known, position, as_of[middle], cuts[middle if cuts.shape[0] > 1 else 0]):
            high = middle
        else:
            low = middle + 1
    return low


@entry
def _begin(rows: Any, as_of: Any, cuts: Any, low: Any, high: Any, masks: Any, changes: Any) -> Any:
    """Write the masks of rows [low, high) that are there from the outset and list the changes; return their number."""
    times, known, position, mask = rows.event_time, rows.known, rows.position, rows.mask
    n, reached, found = as_of.shape[0], 0, 0
    for j in range(low, high):
        while as_of[reached] <= times[j]:  # the first question that has the row before it: the last one has all
            reached += 1
        come = _first_to_see(known[j], position[j], as_of, cuts, reached)
        go = n
        if mask[j] < 0:
            version = rows.version[j]
            for k in range(rows.above_start[version], rows.above_end[version]):
                go = min(go, _first_to_see(rows.above_known[k], rows.above_position[k], as_of, cuts, reached))
        if come >= go:
            continue
        if come == reached:
            masks[j] = mask[j] & INT64_MAX
        else:
            changes[found, 0], changes[found, 1] = come, j
            found += 1
        if go < n:
            changes[found, 0], changes[found, 1] = go, ~j
            found += 1
    return found


@entry
def _by_question(changes: Any, begins: Any, out: Any) -> None:
    """Put changes in the order of their questions, those of one question in their own."""
    for i in range(changes.shape[0]):
        begins[changes[i, 0] + 1] += 1
    for question in range(1, begins.shape[0]):
        begins[question] += begins[question - 1]
    for i in range(changes.shape[0]):
        place = begins[changes[i, 0]]
        out[place, 0], out[place, 1] = changes[i, 0], changes[i, 1]
        begins[changes[i, 0]] += 1


def _own(root: Ints, low: int, high: int, asked: Ints, questions: int) -> tuple[Ints, Ints] | None:
    """Return where the rows [low, high) of each question's own fact stand in a list of rows, and that list."""
    if not (asked >= 0).any():
        return read_only(np.zeros((questions, 2), np.int64)), read_only(np.empty(0, np.int64))
    wanted = np.unique(asked[asked >= 0])
    marks = np.zeros(1 << (4 * len(wanted)).bit_length(), np.bool_)
    found = np.empty(high - low, np.int64)
    rows = found[: _among(root, low, high, read_only(wanted), marks, found)]
    rows = rows[np.isin(root[rows], wanted)]
    rows = rows[np.argsort(root[rows], kind="stable")]
    ranked = root[rows]
    first, last = (np.searchsorted(ranked, asked, side) for side in ("left", "right"))
    if int((last - first).max(initial=0)) > OWN_MAX:
        return None
    return read_only(np.column_stack([first, last]).astype(np.int64)), read_only(rows)


@inlined
def _mark(root: Any, marks: Any) -> Any:
    """Where a root is marked; few others have the same place."""
    return (np.uint64(root) * _MIX >> _HALF) & np.uint64(marks.shape[0] - 1)


@entry
def _among(roots: Any, low: Any, high: Any, wanted: Any, marks: Any, found: Any) -> Any:
    """List the rows [low, high) whose root may be one of those wanted; return their number."""
    n = 0
    for i in range(wanted.shape[0]):
        marks[_mark(wanted[i], marks)] = True
    for j in range(low, high):
        if marks[_mark(roots[j], marks)]:
            found[n] = j
            n += 1
    return n


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
    own = _slice(rows, int(rows.offsets[entity]), int(rows.offsets[entity + 1]))
    roots = self_root[questions]
    roots = roots if (roots >= 0).any() else np.empty(0, np.int64)
    return Sweep(own, questions, read_only(instants), read_only(own_cuts), roots, reach)


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


def tiles_of(
    layout: Layout, source: int, rows: int, span: tuple[int, int], ahead: int = 0, *, windows: int = 0
) -> Tiles | None:
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
    return tiles_for(rows, words, dense_words, dense, spans, windows)
