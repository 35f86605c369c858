"""What Redis carries out in one step: the scripts, and the fence that each of them checks.

A state is two keys. The hash holds every entry under its key and, under the empty key, the *fence*; the sorted set
holds the keys again, all of one score, so that a range of keys is a range of the set. Hash and set change together or
not at all, so that the numbers of their members tell when one of them was evicted or half of a restore is missing.

The fence names the writer and counts its commits: `layout:epoch:token:commits`. It is in the hash because it must go
when the entries go. A script that finds another fence than the one it was called with does nothing and says which.
A script that fails midway, which none should, leaves a fence that nobody accepts; so does each part but the last of a
commit that is too large for one script.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

__all__ = ["ABSENT", "CLAIM", "CLEAR", "COMMIT", "LAYOUT", "NAMES", "READ", "REMOVE", "Fence", "Script"]

LAYOUT = 1  # of the two keys; a state of another layout is emptied
ABSENT = b""
_PART_OF = b" of "


class Fence(NamedTuple):
    """Who writes a state, and how often it has."""

    epoch: int  # rises with every writer
    token: str  # of the writer
    commits: int

    @classmethod
    def left(cls, stored: bytes) -> Fence | None:
        """Return the fence of whoever wrote last: the one that is there, or that a commit in parts is to leave."""
        return cls.read(stored.rpartition(_PART_OF)[2])

    @classmethod
    def read(cls, stored: bytes) -> Fence | None:
        """Return what a stored fence says; None of no fence, of one of another layout, and of half a commit."""
        parts = stored.decode(errors="replace").split(":")
        if len(parts) != 4 or parts[0] != str(LAYOUT):
            return None
        return cls(int(parts[1]), parts[2], int(parts[3]))

    def next(self) -> Fence:
        """Return the fence after one more commit."""
        return self._replace(commits=self.commits + 1)

    def part(self, number: int) -> bytes:
        """Return what stands in the fence's place after a part of the commit that leaves it: nobody's fence."""
        return b"part %d%b%b" % (number, _PART_OF, bytes(self))

    def __bytes__(self) -> bytes:
        return f"{LAYOUT}:{self.epoch}:{self.token}:{self.commits}".encode()


class Script(NamedTuple):
    """A script and the digest that Redis knows it by."""

    source: bytes
    digest: bytes


def _script(source: str) -> Script:
    text = source.strip().encode()
    return Script(text, hashlib.sha1(text).hexdigest().encode())  # Redis' own name for it, no protection


_CHECK = """
local there = redis.call('HGET', KEYS[1], '') or ''
if there ~= ARGV[1] then return redis.error_reply('FENCE ' .. there) end
"""
_WHOLE = """
if redis.call('HLEN', KEYS[1]) ~= redis.call('ZCARD', KEYS[2]) + 1 then return redis.error_reply('FENCE torn') end
"""

# fence, number of keys, keys, then (start, stop, limit) of each range -> the fence and the values of the keys, then of
# each range how many entries it has, their keys and their values. It is one flat list, because Redis sends each list
# in a list by itself. A command of a script takes 7,999 words at most, so nobody asks for more at once.
READ = _script(
    """
local call, hash, order = redis.call, KEYS[1], KEYS[2]
local count = tonumber(ARGV[2])
local found = call('HMGET', hash, '', unpack(ARGV, 3, 2 + count))
local there = found[1] or ''
if there ~= ARGV[1] then return redis.error_reply('FENCE ' .. there) end
if call('HLEN', hash) ~= call('ZCARD', order) + 1 then return redis.error_reply('FENCE torn') end
for i = 3 + count, #ARGV, 3 do
  local names = call('ZRANGEBYLEX', order, '[' .. ARGV[i], '(' .. ARGV[i + 1], 'LIMIT', 0, ARGV[i + 2])
  local size, last = #names, #found + 1
  found[last] = size
  if size > 0 then
    local values = call('HMGET', hash, unpack(names))
    for j = 1, size do
      found[last + j], found[last + size + j] = names[j], values[j]
    end
  end
end
return found
"""
)

# fence, start, stop, limit -> keys
NAMES = _script(
    _CHECK + _WHOLE + "return redis.call('ZRANGEBYLEX', KEYS[2], '[' .. ARGV[2], '(' .. ARGV[3], 'LIMIT', 0, ARGV[4])"
)

# fence, next fence, number of puts, (key, value) of each, keys to delete: a commit, or a part of one
COMMIT = _script(
    _CHECK
    + _WHOLE
    + """
local puts = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], '', 'half of a script')
for i = 4, 2 + 2 * puts, 2 do
  if redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then redis.call('ZADD', KEYS[2], 0, ARGV[i]) end
end
for i = 4 + 2 * puts, #ARGV do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then redis.call('ZREM', KEYS[2], ARGV[i]) end
end
redis.call('HSET', KEYS[1], '', ARGV[2])
return 1
"""
)

# fence, next fence
CLEAR = _script(
    _CHECK
    + """
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], '', ARGV[2])
return 1
"""
)

# fence
REMOVE = _script(_CHECK + "return redis.call('UNLINK', KEYS[1], KEYS[2])")

# fence, own fence, layout: take what is whole as it is, and empty what is not
CLAIM = _script(
    _CHECK
    + """
local whole = redis.call('HLEN', KEYS[1]) == redis.call('ZCARD', KEYS[2]) + 1
if not whole or string.sub(there, 1, #ARGV[3]) ~= ARGV[3] then redis.call('UNLINK', KEYS[1], KEYS[2]) end
redis.call('HSET', KEYS[1], '', ARGV[2])
return 1
"""
)
