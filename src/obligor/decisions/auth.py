"""API keys: who may call the service.

A key is 256 random bits, so its plain SHA-256 is enough to store (nothing can be guessed, so nothing needs slowing);
the configuration holds digests only. A presented key is found by its digest, whose timing says nothing about any key.

    [server.keys]
    shop = "sha256:7d1a..."
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from obligor.errors import DefinitionError, Problem

__all__ = ["KEYS_MAX", "ApiKeys", "format_key", "key_digest"]

KEYS_MAX = 1_000
KEY_BYTES = 32
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def format_key(secret: bytes) -> str:
    """Return the API key made of `secret`, 32 random bytes that the caller draws.

    >>> format_key(bytes(32))[:8]
    'obl_0000'
    """
    if len(secret) != KEY_BYTES:
        raise ValueError(f"expected {KEY_BYTES} random bytes, got {len(secret)}")
    return f"obl_{secret.hex()}"


def key_digest(key: str) -> str:
    """Return what the configuration holds of a key.

    >>> key_digest("obl_00")
    'sha256:eb2b718946f160dc0a4297e6e0d62e9fc00d40f7832a07392a1d5762517d9569'
    """
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


class ApiKeys:
    """The accepted keys by their callers' names."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        """Check `digests` (name -> "sha256:<hex>"); DefinitionError with everything that is wrong."""
        problems = [
            Problem(f"$.server.keys.{name}", message)
            for name, digest in digests.items()
            if (message := _fault(name, digest))
        ]
        if len(digests) > KEYS_MAX:
            problems.append(Problem("$.server.keys", f"expected at most {KEYS_MAX} keys, got {len(digests)}"))
        if problems:
            raise DefinitionError(problems)
        self._names = {digest: name for name, digest in digests.items()}

    @classmethod
    def from_text(cls, text: str) -> ApiKeys:
        """Return the keys of `name=sha256:<hex>` separated by commas, the form of the OBLIGOR_API_KEYS variable.

        >>> len(ApiKeys.from_text(f"shop={key_digest('a')}, desk={key_digest('b')}"))
        2
        """
        entries = [entry.strip().partition("=") for entry in text.split(",") if entry.strip()]
        names = [name for name, _, _ in entries]
        if len(set(names)) < len(names):
            raise DefinitionError(f"two API keys of one name: {', '.join(sorted(names))}")
        return cls({name: digest for name, _, digest in entries})

    def __len__(self) -> int:
        return len(self._names)

    def identify(self, headers: Mapping[str, str]) -> str | None:
        """Return the caller's name by `Authorization: Bearer <key>` or `X-API-Key: <key>`; None if it has none."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            key = headers.get("x-api-key", "")
        return self._names.get(key_digest(key.strip())) if key else None


def _fault(name: str, digest: object) -> str | None:
    if not _NAME.fullmatch(name):
        return f"expected a name of letters, digits, '_', '.' and '-', got {name!r:.80}"
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        return f"expected 'sha256:' and 64 hex digits (never the key itself), got {str(digest)[:8]!r}..."
    return None
