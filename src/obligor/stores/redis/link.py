"""One connection to Redis: scripts with a deadline, and one word for everything that can go wrong with it.

The connection is redis-py's own, used without its client: one writer needs no pool, and nothing may be sent again
behind its back. What a connection that ended was asked is asked again on a new one, twice at most, which is safe
because every script checks the fence; what was too slow is not. One question may be under way while its asker does
something else; its answer is taken before anything else is asked.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

from obligor.errors import BadInput
from obligor.features.state_store import StateGone
from obligor.stores.redis.scripts import Script

try:
    import hiredis
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as missing:  # pragma: no cover - the tests have it
    raise BadInput("online state in Redis needs the extra `redis`: pip install 'obligor[redis]'") from missing

__all__ = ["PATIENCE_S", "Answer", "FenceMoved", "Link"]

PATIENCE_S = 0.2  # for an answer, before decisions go on without the state; `?socket_timeout=` of the address
CONNECT_S = 0.2  # `?socket_connect_timeout=`
BYTES_A_SECOND = 20_000_000  # how slowly a large commit may be taken before Redis counts as too slow


class FenceMoved(Exception):
    """A script found another fence than the one it was called with: `there`."""

    def __init__(self, there: bytes) -> None:
        super().__init__(there)
        self.there = there


class Answer:
    """What a script has been asked and may not have answered yet."""

    def __init__(self, link: Link, script: Script, keys: tuple[bytes, bytes], *arguments: bytes | int) -> None:
        self._link, self._received = link, partial(link.received, script, keys, *arguments)
        self._found: Any = None
        self._error: Exception | None = StateGone(errno.EIO, "the connection to Redis was closed before it answered")

    def settle(self) -> None:
        """Wait for it; for the link, which takes one answer after the other."""
        try:
            self._found, self._error = self._received(), None
        except (StateGone, FenceMoved) as error:
            self._error = error

    def get(self) -> Any:
        """Return it, once it is there; StateGone or FenceMoved."""
        self._link.settle()
        if self._error is not None:
            raise self._error
        return self._found


class Link:
    """A connection under a name, made when it is first needed."""

    def __init__(self, address: str, client_name: str) -> None:
        """BadInput where the address is not one: redis://, rediss:// or unix://, as redis-py reads them."""
        given: dict[str, Any] = {
            "socket_timeout": PATIENCE_S,
            "socket_connect_timeout": CONNECT_S,
            "protocol": 2,
            "client_name": client_name,
            "retry": Retry(NoBackoff(), 0),
        }
        try:
            pool = redis.ConnectionPool.from_url(address, **given)
            self._connection: Any = pool.make_connection()
            self._under_way: Answer | None = None
        except (ValueError, redis.RedisError) as error:
            raise BadInput(f"not an address of Redis: {error}") from None
        self._patience_s = float(pool.connection_kwargs["socket_timeout"])

    def run(self, script: Script, keys: tuple[bytes, bytes], *arguments: bytes | int, size_bytes: int = 0) -> Any:
        """Have a script run on a state's two keys and return its answer; StateGone or FenceMoved.

        `size_bytes`: of the arguments, where they may be many.
        """
        patience_s = self._patience_s + size_bytes / BYTES_A_SECOND
        try:
            try:
                return self._ask(patience_s, b"EVALSHA", script.digest, 2, *keys, *arguments)
            except redis.exceptions.NoScriptError:
                return self._ask(patience_s, b"EVAL", script.source, 2, *keys, *arguments)
        except redis.ResponseError as error:
            raise _refusal(error) from error

    def send(self, script: Script, keys: tuple[bytes, bytes], *arguments: bytes | int) -> Answer:
        """Have a script run as `run` does, without waiting for its answer; StateGone."""
        self.settle()
        answer = Answer(self, script, keys, *arguments)
        try:
            self._write((b"EVALSHA", script.digest, 2, *keys, *arguments))
        except redis.ConnectionError:
            pass  # whoever wants the answer asks on a new one
        except (redis.RedisError, OSError) as error:
            self.close()
            raise _gone(error) from error
        self._under_way = answer
        return answer

    def settle(self) -> None:
        """Take the answer that is under way."""
        answer, self._under_way = self._under_way, None
        if answer is not None:
            answer.settle()

    def received(self, script: Script, keys: tuple[bytes, bytes], *arguments: bytes | int) -> Any:
        """Return the answer to what was sent; StateGone or FenceMoved."""
        try:
            return self._connection.read_response()
        except (redis.ConnectionError, redis.exceptions.NoScriptError):
            return self.run(script, keys, *arguments)
        except redis.ResponseError as error:
            raise _refusal(error) from error
        except (redis.RedisError, OSError) as error:
            self.close()
            raise _gone(error) from error

    def ask(self, *words: bytes) -> Any:
        """Return the answer to a command; StateGone."""
        try:
            return self._ask(self._patience_s, *words)
        except redis.ResponseError as error:
            raise _gone(error) from error

    def may(self, *words: bytes) -> Any:
        """Return the answer to a command, None where Redis does not allow it."""
        try:
            return self._ask(self._patience_s, *words)
        except redis.ResponseError:
            return None

    def _ask(self, patience_s: float, *words: bytes | int) -> Any:
        self.settle()
        try:
            try:
                return self._once(patience_s, words)
            except redis.TimeoutError:
                raise
            except redis.ConnectionError:  # it was closed: by a restart, or because it was idle
                return self._once(patience_s, words)
        except redis.ResponseError:
            raise
        except (redis.RedisError, OSError) as error:
            self.close()
            raise _gone(error) from error

    def _once(self, patience_s: float, words: tuple[bytes | int, ...]) -> Any:
        self._write(words)
        if patience_s == self._patience_s:  # the connection's own, which need not be set at each call
            return self._connection.read_response()
        return self._connection.read_response(timeout=patience_s)

    def _write(self, words: tuple[bytes | int, ...]) -> None:
        packed = hiredis.pack_command(words)  # type: ignore[arg-type]  # which says a tuple of one word
        self._connection.send_packed_command((packed,), check_health=False)

    def close(self) -> None:
        """End the connection, and what is under way; the next question makes another."""
        self._under_way = None
        self._connection.disconnect()


def _refusal(error: redis.ResponseError) -> StateGone | FenceMoved:
    word, _, there = str(error).partition(" ")
    return FenceMoved(there.encode()) if word == "FENCE" else _gone(error)


def _gone(error: Exception) -> StateGone:
    full = "OOM" in str(error)
    return StateGone(errno.ENOSPC if full else errno.EIO, f"the online state in Redis: {error}")
