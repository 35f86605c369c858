"""Places: folders of files, on this machine's disk or in object storage that speaks S3.

In object storage a file's parts are fetched by range, those that are read together in one request where they lie
close. A file is written whole or not at all: on disk it is renamed into its place, in object storage it is sent from a
temporary one, and shows once all of it has arrived.

Credentials are nobody's setting here: both clients find them in the environment (AWS_ACCESS_KEY_ID and so on) or with
the machine's role, so that they are in no file, no task and no message.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
import pyarrow.fs as arrow_fs

from obligor.errors import BadInput, NotFound

__all__ = ["DiskPlace", "Place", "S3Options", "S3Place", "place_of"]

_SCHEME = "s3://"


class S3Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[store.s3]`: the object storage, where it is not Amazon's own; credentials come from the environment."""

    endpoint: str = ""  # such as https://minio.example.com:9000
    region: str = "us-east-1"
    virtual_host: bool = False  # the bucket is a part of the host's name, not of the path
    timeout_s: int = 30

    def __post_init__(self) -> None:
        """Refuse an endpoint that is no address, or that holds a password."""
        parts = urlsplit(self.endpoint)
        if self.endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username):
            raise ValueError("expected an endpoint such as https://host:9000, without credentials in it")


class Place(Protocol):
    """A folder of files."""

    @property
    def address(self) -> str:
        """A path, or an address such as s3://bucket/folder."""

    @property
    def options(self) -> Mapping[str, str] | None:
        """What delta-rs needs to know beside the address."""

    @property
    def read_ahead(self) -> bool:
        """Whether parts of a file that are read together are fetched together."""

    def child(self, name: str) -> Place:
        """Return a folder in this one."""

    def make(self) -> None:
        """Make the folder, where it has to be made."""

    def folders(self) -> list[str]:
        """Return the names of the folders in this one."""

    def open(self, name: str) -> Any:
        """Open a file for reading; NotFound where there is none."""

    def has(self, name: str) -> bool | None:
        """Whether there is a file of this name; None where that takes as long as to ask for all that is new."""

    def draft(self, name: str) -> Path:
        """Return where a file is to be written that `settle` then puts in its place."""

    def settle(self, name: str, draft: Path) -> None:
        """Put a written file in its place, durably."""

    def read(self, name: str) -> Any:
        """Return a file's content; NotFound where there is none."""

    def write(self, name: str, content: Any) -> None:
        """Write a file, whole or not at all; one that is there is replaced."""

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of the files in a folder of this one, with the folder's."""

    def clear(self) -> None:
        """Delete the folder and all that is in it."""


def place_of(address: str | Path, options: S3Options | None = None) -> Place:
    """Return the place at a path or an address; BadInput for an address that is none."""
    text = str(address)
    if text.startswith(_SCHEME):
        bucket, _, folder = text.removeprefix(_SCHEME).strip("/").partition("/")
        if not bucket or not folder:
            raise BadInput(f"expected an address such as s3://bucket/folder, got {text!r}")
        return S3Place(f"{bucket}/{folder}", options or S3Options())
    if "://" in text:
        raise BadInput(f"expected a path or an address s3://bucket/folder, got {text!r}")
    return DiskPlace(Path(address))


def _missing(where: str) -> NotFound:
    return NotFound(f"{where}: the file has been deleted; open the lake again")


class DiskPlace:
    """A folder on this machine's disk, or on one that is mounted here."""

    options: Mapping[str, str] | None = None
    read_ahead = False  # that would take other threads for what lies in memory mostly

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def child(self, name: str) -> DiskPlace:
        """Return a folder in this one."""
        return DiskPlace(self.folder / name)

    def make(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def folders(self) -> list[str]:
        """Return the names of the folders in this one."""
        return sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []

    def open(self, name: str) -> Any:
        """Open a file."""
        try:
            return pa.OSFile(str(self.folder / name))
        except FileNotFoundError:
            raise _missing(str(self.folder / name)) from None

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.folder / name).is_file()

    def draft(self, name: str) -> Path:
        """Return the file's own place: nobody looks for it before a commit names it."""
        self.make()
        return self.folder / name

    def settle(self, name: str, draft: Path) -> None:
        """Wait until the file is on the disk."""
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, name: str) -> Any:
        """Return a file's content."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            raise _missing(str(self.folder / name)) from None

    def write(self, name: str, content: Any) -> None:
        """Write a file beside its place and rename it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        draft.write_bytes(content)
        draft.replace(path)

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of the files in a folder of this one."""
        path = self.folder / folder
        found = path.iterdir() if path.is_dir() else ()
        return frozenset(f"{folder}/{one.name}" for one in found if not one.name.startswith("."))

    def clear(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class S3Place:
    """A folder of a bucket."""

    read_ahead = True

    def __init__(self, path: str, settings: S3Options) -> None:
        self._path, self._settings = path, settings
        self._files: Any = None

    def __getstate__(self) -> None:
        raise TypeError("a place in object storage stays in its process; pass its address")

    @property
    def address(self) -> str:
        """The folder's address."""
        return _SCHEME + self._path

    @property
    def options(self) -> Mapping[str, str]:
        """What delta-rs needs to know; it commits by a conditional put, which the storage has to keep."""
        own = self._settings
        found = {
            "AWS_REGION": own.region,
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(own.virtual_host).lower(),
            "conditional_put": "etag",
            "timeout": f"{own.timeout_s}s",
        }
        if own.endpoint:
            found |= {"AWS_ENDPOINT_URL": own.endpoint}
        if own.endpoint.startswith("http:"):
            found |= {"AWS_ALLOW_HTTP": "true"}
        return found

    @property
    def _fs(self) -> Any:
        if self._files is None:
            own = self._settings
            parts = urlsplit(own.endpoint)
            more = {"endpoint_override": parts.netloc, "scheme": parts.scheme} if own.endpoint else {}
            self._files = arrow_fs.S3FileSystem(
                region=own.region,
                force_virtual_addressing=own.virtual_host,
                request_timeout=own.timeout_s,
                connect_timeout=own.timeout_s,
                **more,
            )
        return self._files

    def child(self, name: str) -> S3Place:
        """Return a folder in this one."""
        found = S3Place(f"{self._path}/{name}", self._settings)
        found._files = self._fs
        return found

    def make(self) -> None:
        """Do nothing: a folder is what names have in common."""

    def folders(self) -> list[str]:
        """Return the names of the folders in this one."""
        found = self._listed("")
        return sorted(one.base_name for one in found if one.type == arrow_fs.FileType.Directory)

    def _listed(self, folder: str) -> list[Any]:
        path = f"{self._path}/{folder}".rstrip("/")
        found: list[Any] = self._told(
            path, lambda: self._fs.get_file_info(arrow_fs.FileSelector(path, allow_not_found=True))
        )
        return found

    def _told(self, path: str, ask: Callable[[], Any]) -> Any:
        """Return what the storage answers; NotFound where it has no such file."""
        try:
            return ask()
        except FileNotFoundError:
            raise _missing(_SCHEME + path) from None

    def open(self, name: str) -> Any:
        """Open a file whose parts are fetched when they are read."""
        path = f"{self._path}/{name}"
        return self._told(path, lambda: self._fs.open_input_file(path))

    def has(self, name: str) -> None:
        """Say nothing: it is a request like any other."""

    def draft(self, name: str) -> Path:
        """Return a temporary place on this machine's disk."""
        descriptor, path = tempfile.mkstemp(suffix=f"-{name}")
        os.close(descriptor)
        return Path(path)

    def settle(self, name: str, draft: Path) -> None:
        """Send the file."""
        with pa.memory_map(str(draft)) as source:
            self.write(name, source.read_buffer())
        draft.unlink()

    def read(self, name: str) -> Any:
        """Return a file's content."""
        path = f"{self._path}/{name}"

        def whole() -> Any:
            with self._fs.open_input_file(path) as source:
                return source.read_buffer()

        return self._told(path, whole)

    def write(self, name: str, content: Any) -> None:
        """Send a file; it shows once all of it has arrived."""
        with self._fs.open_output_stream(f"{self._path}/{name}") as sink:
            sink.write(content)

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of the files in a folder of this one."""
        found = self._listed(folder)
        return frozenset(f"{folder}/{one.base_name}" for one in found if one.type == arrow_fs.FileType.File)

    def clear(self) -> None:
        """Delete all that is in the folder."""
        self._told(self._path, lambda: self._fs.delete_dir_contents(self._path, missing_dir_ok=True))
