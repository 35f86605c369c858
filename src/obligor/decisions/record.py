"""The canonical record of a decision: the bytes that the ledger chains and that replay must reproduce.

JSON with sorted keys, no spaces, floats as Python's shortest repr, NaN as null, -0 as 0; no latencies, nothing that
differs between two computations of one decision. Inputs that cannot be derived from the log (cut, bundle, seed, rung,
with the rung `cached` the cut and instant of its features, and the log's chain hash when it was taken) are recorded;
everything else is derived from them and the log.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from obligor.decisions.decide import Cut, Decision, Offer, Score
from obligor.errors import LimitError

__all__ = ["FORMAT", "decision_id", "decode", "derive_seed", "encode", "features_of"]

FORMAT = 1


def decision_id(log_id: bytes, application_event_id: str) -> str:
    """Return the derived id of the decision on an application: one decision an application of one log.

    >>> decision_id(b"log", "a-1")
    'd-e8894524b778fc76420f2f2a81968e58'
    """
    return "d-" + _digest(b"decision", log_id, application_event_id.encode()).hex()


def derive_seed(log_id: bytes, application_event_id: str) -> int:
    """Return the seed of a decision's random draws, 63 bits, derived so that it cannot be chosen by a caller."""
    return int.from_bytes(_digest(b"seed", log_id, application_event_id.encode())[:8], "big") >> 1


def _digest(*parts: bytes) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(4, "big") + part)
    return hasher.digest()


def encode(decision: Decision, *, log_id: bytes, bundle: str, chain: bytes) -> bytes:
    """Return the canonical bytes; `bundle` is its hash, `chain` the log's chain hash when the decision was taken."""
    application = decision.application
    record: dict[str, Any] = {
        "format": FORMAT,
        "decision_id": decision_id(log_id, application.event_id),
        "application": {"event_id": application.event_id, "type": application.type, "position": application.position},
        "as_of": decision.as_of,
        "cut": _cut(decision.cut),
        "bundle": bundle,
        "chain": chain.hex(),
        "seed": decision.seed,
        "rung": decision.rung,
        "limit": decision.limit,
        "request": dict(decision.request),
        "features": None if decision.features is None else _numbers(decision.features),
        "score": _score(decision.score),
        "contributions": {code: _plain(value) for code, value in decision.contributions.items()},
        "outcome": decision.outcome,
        "offer": _offer(decision.offer),
        "reasons": [
            {"code": r.code, "text": r.text, "contribution": _optional(r.contribution)} for r in decision.reasons
        ],
        "trace": [dict(step) for step in decision.trace],
    }
    if decision.cached is not None:
        record["cached"] = {"cut": _cut(decision.cached.cut), "as_of": decision.cached.as_of}
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _cut(cut: Cut) -> dict[str, int]:
    return {str(shard): sequence for shard, sequence in cut.items()}


def decode(record: bytes) -> dict[str, Any]:
    """Return the record as data; features in the plan's order, null for NaN."""
    data: dict[str, Any] = json.loads(record)
    return data


def features_of(record: Mapping[str, Any]) -> list[float] | None:
    """Return the recorded features with NaN for null."""
    values = record["features"]
    return None if values is None else [math.nan if value is None else value for value in values]


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [None if number != number else _plain(number) for number in map(float, values)]


def _plain(number: float) -> float:
    """Return a finite number with one zero."""
    if not math.isfinite(number):
        raise LimitError(f"a decision may hold finite numbers only, got {number!r}")
    return float(number) + 0.0


def _optional(number: float | None) -> float | None:
    return None if number is None else _plain(number)


def _score(score: Score | None) -> dict[str, float] | None:
    if score is None:
        return None
    return {"margin": _plain(score.margin), "log_odds": _plain(score.log_odds), "pd": _plain(score.pd)}


def _offer(offer: Offer | None) -> dict[str, Any] | None:
    if offer is None:
        return None
    fields = (name for name in Offer.__slots__ if getattr(offer, name) is not None)
    return {name: getattr(offer, name) for name in fields}
