"""
`published.json`: what is published, for one source and one layout; and whether that is ready.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from s3_sync.digest import Content
from s3_sync.folder.volume import Volume
from s3_sync.keys import RESERVED
from s3_sync.settings import Settings
from sidecar_runtime.errors import counted, json_text
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.volume.files import read_facts, write_file
from sidecar_runtime.volume.snapshots import opened

NAME = "published.json"
# Unix time of the year 2286; later times are invalid.
LATEST = 10_000_000_000
# The prefix of the names of partial states.
PARTIAL = "partial-"
UNFINISHED = f"{PARTIAL}unfinished"
"""The name of a change that is partially in place; never the name of a snapshot."""


def partial_name(files: Mapping[str, Content]) -> str:
    """
    Return the name of a partial state; equal files have equal names.
    """
    digest = hashlib.blake2b(digest_size=6)
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{content.etag}\0{content.size_bytes}\0".encode())
    return f"{PARTIAL}{digest.hexdigest()}"


class Published(NamedTuple):
    """
    What is published.

    Args:
        revision: The source's revision if it is completely published; else empty.
        aim: The revision that should be published; differs from `revision` while partial.
        name: The name of the state, and of its snapshot.
        missing: The number of files missing or out of date; 0 if the state is complete.
        fallback: The refused revision if a fallback is published; else empty.
        published_at: Unix time of the publish.
        files: The number of files after the publish.
        damaged: How many of them are known to be missing or altered on disk.
        sequence: Of a release: the highest sequence seen; else 0.
        signed_by: The key that signed it; empty if none had to.
        added, changed, deleted: How many files differ from the previous publish.
    """

    revision: str = ""
    aim: str = ""
    name: str = ""
    missing: int = 0
    fallback: str = ""
    published_at: float = 0.0
    files: int = 0
    damaged: int = 0
    sequence: int = 0
    signed_by: str = ""
    added: int = 0
    changed: int = 0
    deleted: int = 0

    @property
    def shortfall(self) -> str:
        """
        What the state lacks, in words; empty if it is the complete newest revision.
        """
        said = []
        if self.missing:
            said.append(f"{_are(self.missing, 'file')} missing or out of date")
        if self.fallback:
            said.append(f"the gate refused {self.fallback}, so this is a fallback")
        return "; ".join(said)


def parse(facts: Mapping[str, Any]) -> Published | None:
    """
    Return what a record says; None if it is malformed. Pure.
    """
    said = Published()
    for name, default in Published._field_defaults.items():
        if isinstance(facts.get(name), type(default)):
            said = said._replace(**{name: facts[name]})
    is_consistent = bool(said.name) and (said.missing == 0) == bool(said.revision)
    return said if is_consistent and 0 < said.published_at < LATEST else None


class Record:
    """
    The record of one source, one layout and one choice of files on a volume.

    Attributes:
        published: What the record says, or would say if the volume took it; None if nothing is
            published that fits the settings: its files are not those that consumers need, or not
            where they look.
        is_written: Whether the record on disk is the one that this process knows.
    """

    def __init__(self, settings: Settings) -> None:
        self._where: dict[str, object] = {
            "source": settings.source,
            "kind": settings.source_kind,
            "layout": settings.layout,
        }
        if settings.trusted_keys is not None:
            self._where["signed"] = True
        filters = [list(globs) for globs in (settings.include, settings.exclude)]
        if any(filters):
            self._where["filters"] = filters
        self._pin = settings.revision
        self.published: Published | None = None
        self.is_written = True

    def read(self, state: int) -> None:
        """
        Read the record from the open `.s3-sync`; one that is missing, malformed, or of other
        settings says nothing.
        """
        facts = read_facts(NAME, state)
        where = {"filters": None, **self._where}
        is_ours = all(facts.get(name) == value for name, value in where.items())
        is_pinned = not self._pin or facts.get("revision") == self._pin
        self.published = parse(facts) if is_ours and is_pinned else None
        self.is_written = True

    def read_outside(self, path: str) -> Published | None:
        """
        Read the record of a target without the lock.

        Raises:
            OSError: There is no target, or it cannot be read.
        """
        self.published = None
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with opened(path, flags=flags) as root, opened(RESERVED, root) as state:
            self.read(state)
        return self.published

    def write(self, volume: Volume, fence: Fence, published: Published) -> None:
        """
        Replace the record.

        Raises:
            OSError: It was not written. This process knows it all the same.
        """
        self.published, self.is_written = published, False
        facts = published._asdict()
        if not published.sequence:
            del facts["sequence"], facts["signed_by"]
        content = json_text(facts | self._where).encode() + b"\n"
        with fence:
            fsync = volume.staging.fsync
            write_file(NAME, content, 0o664, fsync=fsync, dir_fd=volume.state)
        self.is_written = True

    def readiness(self, problem: str = "") -> Readiness:
        """
        Return whether what is published is there and intact.

        Args:
            problem: Why consumers do not see what is published.
        """
        published = self.published
        if published is None:
            return Readiness(False, problem="nothing is published yet that fits the settings here")
        if published.damaged:
            problem = f"{_are(published.damaged, 'published file')} missing or altered on disk"
        facts = (published.revision, published.published_at, problem, published.shortfall)
        return Readiness(not problem, *facts)


def _are(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def now() -> float:
    """
    Return the Unix time of a publish, in milliseconds.
    """
    return round(time.time(), 3)
