"""What a Redis server must be like, and is like, for online state in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from obligor.findings import Finding, fine, problem, warning
from obligor.stores.redis.link import Link
from obligor.stores.redis.states import RedisStates

__all__ = ["checkup"]

SUBJECT: Final = "Redis"
VERSION_MIN: Final = 6
FULL_SHARE: Final = 0.8  # of its memory, from which on somebody should look


def checkup(address: str) -> Iterator[Finding]:
    """Yield what is found; StateGone where nobody answers."""
    link = Link(RedisStates(address).address, "obligor-doctor")
    try:
        told = _told(link)
    finally:
        link.close()
    version = told.get("redis_version", "0")
    if int(version.partition(".")[0]) < VERSION_MIN:
        yield problem(SUBJECT, f"the server is version {version}", f"run {VERSION_MIN} or newer")
    else:
        yield fine(SUBJECT, f"version {version} answers, {int(told.get('used_memory', 0)) / 2**20:,.0f} MiB in use")
    if told.get("role") == "slave":
        yield problem(SUBJECT, "the server is a replica, which takes no writes", "point [store] state at the primary")
    if told.get("cluster_enabled") == "1":
        yield warning(
            SUBJECT, "the server is one of a cluster; only this one is asked", "use a server of its own for the state"
        )
    yield from _memory(told)


def _memory(told: dict[str, str]) -> Iterator[Finding]:
    policy, most, used = told.get("maxmemory_policy", ""), int(told.get("maxmemory", 0)), int(told["used_memory"])
    if most and policy != "noeviction":
        yield problem(
            SUBJECT,
            f"maxmemory-policy is {policy}: when memory is short it drops entities, and the state is then built anew",
            "CONFIG SET maxmemory-policy noeviction",
        )
    if most and used > FULL_SHARE * most:
        yield warning(SUBJECT, f"{used / most:.0%} of its memory is in use", "raise maxmemory before it is full")


def _told(link: Link) -> dict[str, str]:
    text = link.ask(b"INFO", b"everything").decode(errors="replace")
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
