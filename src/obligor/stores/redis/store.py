"""A state in Redis, for its one writer and for readers.

Redis is where rows may vanish: it restarts empty or from an old snapshot, a failover loses the newest commits, another
writer comes. So nothing is believed without the fence (`scripts`): every read and every commit names the one that
this writer left, and fails with StateGone where another is there. `begin` after that takes the state again: with what
it holds, which the log then brings forward, unless somebody else has taken it since (StateBusy, for good).

No entry has a time to live and no single one can be evicted, because an entity with fewer rows would look like one
that is less indebted; with `maxmemory` use `noeviction`: whatever else happens is found by the counts, and rebuilt.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, NoReturn

from obligor.errors import BadInput, NotFound
from obligor.features.state_store import StateBusy, StateGone, StateMoved, StateTaken
from obligor.stores.redis.link import Answer, FenceMoved, Link
from obligor.stores.redis.scripts import ABSENT, CLAIM, CLEAR, COMMIT, LAYOUT, NAMES, READ, REMOVE, Fence, Script
from obligor.stores.redis.transaction import Fetched, Page, RedisTransaction

__all__ = ["RedisStateReader", "RedisStateStore", "keys_of", "size_and_use"]

_CLIENT = "obligor-state-"
_CLAIMS_MAX = 5
PART_BYTES = 1 << 20  # of a commit that are carried out in one step; everybody else at this Redis waits meanwhile
_ENTRY_BYTES = 256  # what an entry costs beside its bytes, in as many bytes
GONE_MAX = 4_000  # entries that are deleted in one step
PATIENCE_S = 0.5  # because Redis sees only after a moment that a process has ended
_PAUSE_S = 0.01
_SAMPLES = b"100"  # of the values, by which Redis estimates the size of all


def keys_of(name: str) -> tuple[bytes, bytes]:
    """Return a state's two keys; the braces keep them in one slot of a cluster.

    >>> keys_of("lender:1f")
    (b'obligor:{lender:1f}:entries', b'obligor:{lender:1f}:order')
    """
    return b"obligor:{%s}:entries" % name.encode(), b"obligor:{%s}:order" % name.encode()


def size_and_use(link: Link, name: str) -> tuple[int, bool]:
    """Return how many bytes a state takes, and whether somebody has it open for writing."""
    sizes = (link.may(b"MEMORY", b"USAGE", key, b"SAMPLES", _SAMPLES) for key in keys_of(name))
    fence = Fence.left(link.ask(b"HGET", keys_of(name)[0], b"") or ABSENT)
    return sum(size or 0 for size in sizes), fence is not None and _is_connected(link, fence)


def _is_connected(link: Link, fence: Fence) -> bool:
    """Whether the writer that a fence names is there; False where Redis does not tell."""
    return f"name={_CLIENT}{fence.token} ".encode() in (link.may(b"CLIENT", b"LIST") or b"")


class _Reading:
    """Reads under a fence; where another is there, `_moved` says what that means."""

    def __init__(self, address: str, name: str, client_name: str) -> None:
        self._name, self._keys = name, keys_of(name)
        self._link = Link(address, client_name)

    def _moved(self, there: bytes) -> NoReturn:
        raise NotImplementedError

    def _fence_there(self) -> bytes:
        there: bytes | None = self._link.ask(b"HGET", self._keys[0], b"")
        return there or ABSENT

    def _run(self, script: Script, *arguments: bytes | int) -> Any:
        """Have a script read."""
        return self._answer(partial(self._link.run, script, self._keys, *arguments))

    def _answer(self, get: Callable[[], Any]) -> Any:
        """Return what a script that reads answers."""
        try:
            return get()
        except FenceMoved as moved:
            self._moved(moved.there)

    def _read(self, fence: bytes, keys: Sequence[bytes], ranges: Sequence[Page]) -> Callable[[], Fetched]:
        limits = [part for one in ranges for part in one]
        answer = self._answer(partial(self._link.send, READ, self._keys, fence, len(keys), *keys, *limits))
        return partial(self._fetched, answer, len(keys), len(ranges))

    def _fetched(self, answer: Answer, keys: int, ranges: int) -> Fetched:
        """Return what `READ` answers about so many keys and ranges."""
        found, at = self._answer(answer.get), 1 + keys
        scanned = []
        for _ in range(ranges):
            size, first = found[at], at + 1
            at = first + 2 * size
            scanned.append(list(zip(found[first : first + size], found[first + size : at], strict=True)))
        return found[1 : 1 + keys], scanned

    def _names(self, fence: bytes, start: bytes, stop: bytes, limit: int) -> list[bytes]:
        names: list[bytes] = self._run(NAMES, fence, start, stop, limit)
        return names


class RedisStateStore(_Reading):
    """The state called `name` on the server at `address`, for writing; nothing is asked of Redis before `begin`."""

    def __init__(self, address: str, name: str) -> None:
        self._token = secrets.token_hex(8)
        super().__init__(address, name, _CLIENT + self._token)
        self._fence: Fence | None = None  # what this writer left; None where that is to be looked at again
        self._epoch = 0  # of this writer's last claim; 0: it has made none
        self._lost_to = ""  # the token of another writer

    def begin(self) -> RedisTransaction:
        """Start the one write transaction; StateGone, StateTaken or StateBusy where it is not there."""
        fence = self._claimed()
        own = bytes(fence)
        return RedisTransaction(partial(self._read, own), partial(self._names, own), partial(self._commit, fence))

    def clear(self) -> None:
        """Remove everything, for a rebuild; Redis frees the memory in the background."""
        fence = self._claimed()
        self._fence = None
        self._change(CLEAR, bytes(fence), bytes(fence.next()))
        self._fence = fence.next()

    def remove(self) -> None:
        """Remove the state, fence and all; StateBusy where another writer has it."""
        fence = self._claimed()
        self._fence = None
        self._run(REMOVE, bytes(fence))

    def close(self) -> None:
        """End the connection. What Redis makes durable, and when, is its own configuration."""
        self._fence = None
        self._link.close()

    def _commit(self, fence: Fence, puts: list[tuple[bytes, bytes]], gone: list[bytes]) -> None:
        if fence != self._fence:
            raise StateGone(f"the online state {self._name} was lost while this was staged")
        self._fence = None  # until what follows it is known
        before, following = bytes(fence), fence.next()
        *parts, last = _parts(puts, gone)
        for number, part in enumerate(parts, start=1):
            before = self._step(before, following.part(number), part)
        self._step(before, bytes(following), last)
        self._fence = following

    def _step(self, before: bytes, after: bytes, part: _Part) -> bytes:
        """Carry out a commit, or a part of one, that finds `before` in the fence's place and leaves `after`."""
        items = [one for item in part.puts for one in item]
        self._change(COMMIT, before, after, len(part.puts), *items, *part.gone, bytes_sent=part.size_bytes)
        return after

    def _change(
        self, script: Script, before: bytes, after: bytes, *arguments: bytes | int, bytes_sent: int = 0
    ) -> None:
        try:
            self._link.run(script, self._keys, before, after, *arguments, size_bytes=bytes_sent)
        except FenceMoved as moved:
            if moved.there != after:  # else it was done, and only the answer was lost with the connection
                self._moved(moved.there)

    def _moved(self, there: bytes) -> NoReturn:
        self._fence = None
        self._check_own(there)
        raise StateGone(f"the online state {self._name} in Redis is not what this writer left: {_words(there)}")

    def _check_own(self, there: bytes) -> None:
        """StateTaken where a fence shows that another writer came after this one's claim."""
        stored = Fence.left(there)
        if self._epoch and stored is not None and stored.token != self._token and stored.epoch >= self._epoch:
            self._lost_to = stored.token
        if self._lost_to:
            raise StateTaken(
                f"the online state {self._name} was taken over by another writer, {self._lost_to}; this one is to be "
                "stopped, or the other one first and this one started again"
            )

    # -- taking the state

    def _claimed(self) -> Fence:
        if self._fence is None:
            self._check_own(ABSENT)
            self._fence = self._claim()
        return self._fence

    def _claim(self) -> Fence:
        """Take the state, in an epoch of its own, so that whatever another or this writer sent before does nothing."""
        for _ in range(_CLAIMS_MAX):
            there = self._fence_there()
            self._check_own(there)
            stored = Fence.left(there)
            if not self._epoch and stored is not None:
                self._check_left(stored)
            own = Fence(max(self._epoch, 0 if stored is None else stored.epoch) + 1, self._token, 0)
            try:
                self._link.run(CLAIM, self._keys, there, bytes(own), b"%d:" % LAYOUT)
            except FenceMoved as moved:
                if moved.there != bytes(own):
                    continue
            self._epoch = own.epoch
            return own
        raise StateGone(f"the online state {self._name} in Redis is being taken by several writers")

    def _check_left(self, stored: Fence) -> None:
        """StateBusy while the writer that a fence names is connected; where Redis does not tell, the fence must do."""
        deadline_s = time.monotonic() + PATIENCE_S
        while _is_connected(self._link, stored):
            if time.monotonic() > deadline_s:
                raise StateBusy(
                    f"another process is writing this online state, {self._name} in Redis (its connection is named "
                    f"{_CLIENT}{stored.token}), and one may; wait until it is done, stop it, or give each project its "
                    "own `?prefix=` (`obligor state list` shows the states in use)"
                )
            time.sleep(_PAUSE_S)


class _Part(NamedTuple):
    """What one script changes."""

    puts: list[tuple[bytes, bytes]]
    gone: list[bytes]
    size_bytes: int


def _parts(puts: Sequence[tuple[bytes, bytes]], gone: Sequence[bytes]) -> Iterator[_Part]:
    """Yield a commit in parts of about `PART_BYTES`, at least one."""
    start = size_bytes = 0
    for place, (key, value) in enumerate(puts):
        size_bytes += len(key) + len(value) + _ENTRY_BYTES
        if size_bytes >= PART_BYTES:
            yield _Part(list(puts[start : place + 1]), [], size_bytes)
            start, size_bytes = place + 1, 0
    for place in range(0, len(gone) - GONE_MAX, GONE_MAX):
        yield _Part([], list(gone[place : place + GONE_MAX]), 0)
    rest = len(gone) % GONE_MAX or min(len(gone), GONE_MAX)
    yield _Part(list(puts[start:]), list(gone[len(gone) - rest :]), size_bytes)


class RedisStateReader(_Reading):
    """The state called `name` as another process writes it; a transaction only reads, and all of it of one moment.

    Redis keeps no old versions, so it ends with StateMoved as soon as the writer has gone on. NotFound where there is
    no state.
    """

    def __init__(self, address: str, name: str) -> None:
        super().__init__(address, name, "obligor-reader")
        self.begin()

    def _answer(self, get: Callable[[], Any]) -> Any:
        with _not_found():
            return super()._answer(get)

    def begin(self) -> RedisTransaction:
        """Look at the state as it is now."""
        with _not_found():
            fence = self._fence_there()
        if Fence.read(fence) is None:
            raise NotFound(f"no online state {self._name} in Redis; a service builds it when it starts")
        return RedisTransaction(partial(self._read, fence), partial(self._names, fence), _refuse)

    def _moved(self, there: bytes) -> NoReturn:
        raise StateMoved(f"the online state {self._name} was changed while it was read")

    def clear(self) -> None:
        """Refuse: only the writer may."""
        _refuse()

    def close(self) -> None:
        """End the connection."""
        self._link.close()


@contextmanager
def _not_found() -> Iterator[None]:
    try:
        yield
    except StateGone as error:
        raise NotFound(f"the online state cannot be read: {error}") from None


def _refuse(*_: object) -> None:
    raise BadInput("this state is open for reading only")


def _words(there: bytes) -> str:
    stored = Fence.read(there)
    return "it is empty" if not there else repr(there) if stored is None else f"an older state, {stored.commits}"
