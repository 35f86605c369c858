"""The log's keys and its sealed personal fields.

Personal fields are stored apart from the blocks, sealed with AES-256-GCM (NIST SP 800-38D) under a random 96-bit nonce;
log id and position are authenticated with them, so that a blob cannot be moved to another event. Deleting a blob, or
the key file, forgets the person and leaves every hash and chain intact: blocks hold only keyed commitments.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from obligor.errors import IntegrityError, NotFound
from obligor.parts import sync_folder

__all__ = ["KEY_FILE", "LogKey"]

KEY_FILE = "key"
_PART_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True)
class LogKey:
    """A log's secret: `commitment` keys the content hash of personal fields, `encryption` seals them."""

    commitment: bytes = field(repr=False)
    encryption: bytes = field(repr=False)

    @classmethod
    def create(cls, folder: Path, random: Callable[[int], bytes] = os.urandom) -> LogKey:
        """Write a new key file, readable by its owner only; FileExistsError if there is one."""
        secret = random(2 * _PART_BYTES)
        descriptor = os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
        return cls(secret[:_PART_BYTES], secret[_PART_BYTES:])

    @classmethod
    def load(cls, folder: Path) -> LogKey:
        """Read the key file of a log's folder."""
        path = folder / KEY_FILE
        try:
            secret = bytes.fromhex(path.read_text().strip())
        except FileNotFoundError:
            raise NotFound(
                f"{path}: the log's key is not here; copy it beside the log to append or to decrypt"
            ) from None
        except ValueError:
            raise IntegrityError(f"{path}: expected the log's key as hexadecimal digits") from None
        if len(secret) != 2 * _PART_BYTES:
            raise IntegrityError(f"{path}: expected a key of {2 * _PART_BYTES} bytes, got {len(secret)}")
        return cls(secret[:_PART_BYTES], secret[_PART_BYTES:])

    def mark(self, log_id: bytes) -> bytes:
        """Return what tells, with a log, whether a key is the log's own, and nothing about the key."""
        return blake2b(log_id, key=self.commitment, digest_size=16, person=b"obligor key mark").digest()

    def seal(self, plain: bytes, log_id: bytes, position: int, random: Callable[[int], bytes] = os.urandom) -> bytes:
        """Return nonce and ciphertext of an event's personal fields."""
        nonce = random(_NONCE_BYTES)
        return nonce + AESGCM(self.encryption).encrypt(nonce, plain, _context(log_id, position))

    def unseal(self, sealed: bytes, log_id: bytes, position: int) -> bytes:
        """Return the plain personal fields; IntegrityError if they were changed, moved or sealed with another key."""
        try:
            return AESGCM(self.encryption).decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _context(log_id, position)
            )
        except InvalidTag:
            raise IntegrityError(f"the personal fields at position {position} do not fit the log's key") from None


def _context(log_id: bytes, position: int) -> bytes:
    return log_id + position.to_bytes(8, "big")
