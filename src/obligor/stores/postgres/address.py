"""Where a log is: a PostgreSQL URL as libpq knows it, and in it `log`, the name of the log.

    postgresql://obligor@db.internal:5432/lending?log=lender&sslmode=verify-full

Each log has a schema of its own, `obligor_` and its name, so that several logs lie in one database and each is dumped,
restored and granted by itself. Everything but `log` is libpq's, with its defaults: PGPASSWORD, PGSERVICE, ~/.pgpass.
Errors and reports show host, port, database and log; never who connects, nor with what.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from urllib.parse import parse_qsl, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from obligor.errors import BadInput

__all__ = ["Address"]

SCHEMA_PREFIX = "obligor_"
_NAME = re.compile(r"[a-z0-9_]{1,48}")
_FORM = "postgresql://[user@]host[:port]/database?log=name"
_PORTS = re.compile(r"[0-9,]*")
_UNREADABLE = (
    f"expected a URL of a log in PostgreSQL ({_FORM}), got one that cannot be read; in a password, percent-encode what "
    "is no letter or digit"
)
_SECRETS = ("password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret")


@dataclass(frozen=True)
class Address:
    """A log's address: what libpq is given, and the log's name."""

    parameters: dict[str, str] = field(repr=False)
    log: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; BadInput, which does not repeat it, where it is none of a log."""
        place, _, query = url.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        names = [value for name, value in pairs if name == "log"]
        if len(names) != 1 or not _NAME.fullmatch(names[0]):
            raise BadInput(
                f"expected the log's name in the URL ({_FORM}), 1 to 48 of a-z, 0-9 and _, got {names or 'none'}"
            )
        rest = urlencode([pair for pair in pairs if pair[0] != "log"])
        try:
            found = conninfo_to_dict(f"{place}?{rest}" if rest else place)
        except psycopg.Error:  # its message may quote a password
            raise BadInput(_UNREADABLE) from None
        parameters = {name: str(value) for name, value in found.items() if value is not None}
        # A password with a slash that is not encoded ends up in these, which are shown.
        shown = parameters.get("host", "") + parameters.get("dbname", "")
        if "@" in shown or not _PORTS.fullmatch(parameters.get("port", "")):
            raise BadInput(_UNREADABLE)
        return cls(parameters, names[0])

    @property
    def schema(self) -> str:
        """The schema that holds the log's tables; needs no quoting."""
        return SCHEMA_PREFIX + self.log

    @property
    def lock(self) -> int:
        """The key of the advisory lock that the log's writer holds."""
        return int.from_bytes(blake2b(self.schema.encode(), digest_size=8).digest(), "big", signed=True)

    def __str__(self) -> str:
        own = self.parameters
        host, port = own.get("host", own.get("hostaddr", "")), own.get("port", "")
        place = f"{host}:{port}" if port else host
        return f"postgresql://{place}/{own.get('dbname', '')}?log={self.log}"

    def without_secrets(self, text: str) -> str:
        """Return a message of libpq or the server without what must not be shown."""
        for name in _SECRETS:
            if self.parameters.get(name):
                text = text.replace(self.parameters[name], "***")
        return " ".join(text.split())
