"""A private S3 server on 127.0.0.1, for tests: `with server() as running:`, then `running.bucket()`.

moto speaks S3 over HTTP; its objects live in the memory of its process, which is gone afterwards.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from tests.waiting import wait_until

#: Where the server is that tests are to use.
URL = "EDI_TEST_S3"


@dataclass(frozen=True)
class Server:
    """A running server. `environment` is what a process needs to reach it."""

    url: str

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "edi",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            # Else it looks for a machine in a cloud that would tell it who it is.
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def bucket(self) -> str:
        """The URL of a new, empty bucket."""
        name = f"edi-{uuid4().hex[:16]}"
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        with _direct().open(request, timeout=30):
            return f"s3://{name}"


@contextmanager
def server() -> Iterator[Server]:
    """A server of one's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 28)}
    process = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running = Server(f"http://127.0.0.1:{port}")
    try:
        wait_until(lambda: _answers(running.url), "the S3 server")
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    with suppress(OSError), _direct().open(url, timeout=5):
        return True
    return False


def _direct() -> urllib.request.OpenerDirector:
    """Past any proxy of the environment."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
