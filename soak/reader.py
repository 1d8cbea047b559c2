"""
A consumer process: ``python -m soak.reader LOCK KIND [ARGUMENT ...]`` runs until its input ends.

It reads repeatedly, and once a second prints a line of JSON with the number of reads and changes so
far, and the flaws since the previous line. It pauses while another process holds LOCK.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import psycopg2

from tests.support.airflow.permissions import grants_on
from tests.support.kerberos import ccache_reader
from tests.support.revisions import Flaw, make_revision, read_revision

REPORT_SECONDS = 1.0

Read = Callable[[], object]
"""Reads once and returns a description of the state; raises for a flaw."""


def tree(link: str, retain_seconds: str) -> Read:
    """
    Return a reader that resolves the link once and expects one complete revision below it.

    A read that takes longer than snapshots are retained is not judged.
    """

    def read() -> object:
        began = time.monotonic()
        folder = str(Path(link).parent / os.readlink(link))
        try:
            return read_revision(folder)
        except (Flaw, OSError, ValueError):
            if time.monotonic() - began < float(retain_seconds):
                raise
            return None

    return read


def files(folder: str) -> Read:
    """
    Return a reader of a file that every revision contains: it must exist, from a single revision.
    """
    paths = cycle(sorted(path for path in make_revision(0) if path.startswith("pkg")))

    def read() -> object:
        path = next(paths)
        content = Path(folder, path).read_bytes()
        number = int(content.split(b" ", 1)[0])
        if content != make_revision(number)[path]:
            raise Flaw(f"{path} is not a file of revision {number}")
        return path, number

    return read


@dataclass(frozen=True)
class Metadata:
    """
    A metadata database, for `grants_on`.
    """

    url: str

    def query(self, sql: str, arguments: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """
        Run a statement and return its rows.
        """
        with closing(psycopg2.connect(self.url)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql, tuple(arguments) or None)
            return list(cursor.fetchall())


def grants(url: str, resource: str, wanted: str) -> Read:
    """
    Return a reader of the grants on an untouched resource; an unreachable database is not a flaw.
    """

    def read() -> object:
        with suppress(psycopg2.OperationalError):
            found = sorted(map(list, grants_on(Metadata(url), resource)))
            if found != json.loads(wanted):
                raise Flaw(f"on {resource}: {found}")
        return None

    return read


KINDS: dict[str, tuple[Callable[..., Read], float]] = {
    "tree": (tree, 0.02),
    "files": (files, 0.01),
    "klist": (ccache_reader.klist, 0.2),
    "acquire": (ccache_reader.acquire, 0.05),
    "grants": (grants, 0.2),
}
"""How to read, and the seconds between two reads, which leave CPU time for the sidecars."""


def main(lock: str, kind: str, *arguments: str) -> None:
    """
    Read until standard input ends.
    """
    make, pause_seconds = KINDS[kind]
    read = make(*arguments)
    reads = changes = 0
    seen: dict[object, object] = {}
    flaws: list[str] = []
    reported_at = time.monotonic()
    with open(lock) as held, selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        ended = False
        while not ended:
            ended = bool(selector.select(pause_seconds))
            fcntl.flock(held, fcntl.LOCK_SH)
            try:
                reads += 1
                found = read()
            except Exception as error:  # noqa: BLE001 - a consumer would see any exception
                flaws.append(f"{type(error).__name__}: {error}")
            else:
                what, value = found if isinstance(found, tuple) else (None, found)
                if isinstance(value, int):
                    changes += seen.get(what, value) != value
                    seen[what] = value
            finally:
                fcntl.flock(held, fcntl.LOCK_UN)
            if ended or time.monotonic() - reported_at > REPORT_SECONDS:
                print(json.dumps({"reads": reads, "changes": changes, "flaws": flaws}), flush=True)
                flaws, reported_at = [], time.monotonic()


if __name__ == "__main__":
    main(*sys.argv[1:])
