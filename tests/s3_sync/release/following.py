"""Releases, settings and helpers for tests of the source `release`."""

import os
from dataclasses import replace

from tests.s3_sync.process import Process
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.shelf import RELEASE

FILES = {f"pkg{n % 3}/m{n}.py": f"x = {n}\n".encode() * 30 for n in range(12)} | {"empty.py": b""}
# Enough files for a manifest that is read in ranges.
MANY = {f"team{n % 9}/dag_{n:04}.py": b"x = %d\n" % n for n in range(700)}
PINNED = {"KEY_PATH": "dags", **RELEASE}


def staged(process: Process) -> list[str]:
    return os.listdir(process.folder / ".s3-sync/staging")


def times(process: Process) -> dict[str, int]:
    folder = process.folder / "current"
    return {path: (folder / path).stat().st_mtime_ns for path in process.shown}


def whole(exchange: Exchange) -> None:
    """Answer like a server that ignores the Range header."""
    headers = {name: text for name, text in exchange.request.headers.items() if name != "range"}
    exchange.request = replace(exchange.request, headers=headers)
    exchange.send(exchange.good())
