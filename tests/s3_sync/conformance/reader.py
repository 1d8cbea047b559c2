"""
A process that reads from S3 as often as it is told to, and says how each time ended.

It is a process of its own, because what it says of its memory would else be that of the tests.
One order a line on standard input, one report a line on standard output, both JSON.
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
    How a request ended.

    Args:
        reason: Why it failed; ``moved``; empty after an answer.
        body_bytes: How much of the body came, in the last attempt.
        body_md5: What came, in hex.
        grown_kib: How much more memory the process held meanwhile than before.
    """

    reason: str
    message: str
    body_bytes: int
    body_md5: str
    grown_kib: int


class Body:
    """
    What came, in the last attempt; kept in pieces, as receivers do.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.size_bytes = 0
        self.md5 = hashlib.md5()
        self.pieces: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        self.md5.update(chunk)
        self.pieces.append(chunk)


class Reader:
    """
    The process, seen from the tests.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def read(self, what: str, endpoint: str, ca_bundle: Path | None = None) -> Report:
        """
        List or get by a new client, once, and once more where that succeeded.

        The second time shows what the first left on the connection.

        Args:
            what: ``list`` or ``get``.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        bundle = str(ca_bundle) if ca_bundle else None
        order = {"what": what, "endpoint": endpoint, "ca_bundle": bundle}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the reader has died"
        return Report(**json.loads(line))


@contextmanager
def reading() -> Iterator[Reader]:
    """
    A reader, until the end of the block.
    """
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


def _obey(order: dict[str, str | None]) -> Report:
    chain = Given(config(endpoint_url=order["endpoint"], ca_bundle=order["ca_bundle"]))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak: proc_pid_clear_refs(5)
    before_kib = _memory_kib("VmRSS")
    reason = message = ""
    body = Body()
    try:
        asyncio.run(_read(order["what"] or "", chain, body))
    except SidecarError as error:
        reason, message = error.reason, error.message
    except ObjectMoved:
        reason = "moved"
    grown_kib = _memory_kib("VmHWM") - before_kib
    return Report(reason, message, body.size_bytes, body.md5.hexdigest(), grown_kib)


if __name__ == "__main__":
    random.uniform = lambda a, b: a  # the wait before a retry may be none
    for line in sys.stdin:
        print(json.dumps(asdict(_obey(json.loads(line)))), flush=True)
