"""
A process that sends requests to S3 and reports their results, so that its memory is measured alone.

It reads one JSON order per line on standard input, and prints one JSON report per line.
"""

import asyncio
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ObjectMoved
from sidecar_runtime.aws.credentials import Chain
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.s3_sync.given import Given, config

BUCKET = "dags-bucket"
PREFIX = "dags/"
KEY = "dags/a.py"
BODY = b"print('hello')\n"


@dataclass(frozen=True)
class Report:
    """
    The result of a request.

    Args:
        reason: The reason of the error, ``moved``, or empty after success.
        body_bytes: The size of the received body, in the last attempt.
        body_md5: The MD5 of the received body, in hex.
        grown_kib: The peak growth of the process's memory during the request.
    """

    reason: str
    message: str
    body_bytes: int
    body_md5: str
    grown_kib: int


class Body:
    """The size and digest of the body of the last attempt."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.size_bytes = 0
        self.md5 = hashlib.md5()

    def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        self.md5.update(chunk)


class Reader:
    """The tests' handle of the process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def read(self, what: str, endpoint: str) -> Report:
        """
        List or get with a new client, and again after success to check the used connection.

        Args:
            what: ``list`` or ``get``.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"what": what, "endpoint": endpoint}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the reader has died"
        return Report(**json.loads(line))


@contextmanager
def reading() -> Iterator[Reader]:
    """Yield a reader, and stop it at the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Reader(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


async def _read(what: str, chain: Chain, body: Body) -> None:
    client = S3Client(BUCKET, PREFIX, chain, lambda _: None)
    try:
        client.begin_cycle(Fence())
        for _ in range(2):
            if what == "list":
                body.restart()
                body.write(await client.list_page(None))
            else:
                etag = hashlib.md5(BODY).hexdigest()
                await client.get_object(KEY, etag, len(BODY), body)
    finally:
        client.close()


def _memory_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _obey(order: dict[str, str]) -> Report:
    chain = Given(config(endpoint_url=order["endpoint"]))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak: proc_pid_clear_refs(5)
    before_kib = _memory_kib("VmRSS")
    reason = message = ""
    body = Body()
    try:
        asyncio.run(_read(order["what"], chain, body))
    except SidecarError as error:
        reason, message = error.reason, error.message
    except ObjectMoved:
        reason = "moved"
    grown_kib = _memory_kib("VmHWM") - before_kib
    return Report(reason, message, body.size_bytes, body.md5.hexdigest(), grown_kib)


if __name__ == "__main__":
    random.uniform = lambda a, b: a  # retries wait for the minimum
    for line in sys.stdin:
        print(json.dumps(asdict(_obey(json.loads(line)))), flush=True)
