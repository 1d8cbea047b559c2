"""
`published.json`: what is published, for one source and one layout; and whether that is ready.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from s3_sync.digest import Content
from s3_sync.folder.paths import opened
from s3_sync.folder.volume import Volume
from s3_sync.keys import RESERVED
from s3_sync.settings import Settings
from sidecar_runtime.errors import json_text
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.volume.files import read_facts

NAME = "published.json"
# Unix time of the year 2286; later times are invalid.
LATEST = 10_000_000_000
# The prefix of the names of partial states.
PARTIAL = "partial-"
UNFINISHED = f"{PARTIAL}unfinished"
"""The name of a change that is partially in place; never the name of a snapshot."""
CHANGES = ("added", "changed", "deleted")


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
        is_filtered: Whether it was published with other filters; then it is partial.
        sequence: Of a release: the highest sequence seen; else 0.
        signed_by: The key that signed it; empty if none had to.
    """

    revision: str
    aim: str
    name: str
    missing: int
    fallback: str
    published_at: float
    files: int
    is_filtered: bool = False
    sequence: int = 0
    signed_by: str = ""

    @property
    def shortfall(self) -> str:
        """
        What the state lacks, in words; empty if it is the complete newest revision.
        """
        said = []
        if self.is_filtered:
            said.append("S3_SYNC_INCLUDE or S3_SYNC_EXCLUDE has changed since this was published")
        if self.missing and not self.aim:
            said.append("the publish was interrupted, so its revision is unknown")
        elif self.missing:
            files = "file is" if self.missing == 1 else "files are"
            said.append(f"{self.missing} {files} missing or out of date")
        if self.fallback:
            said.append(f"the gate refused {self.fallback}, so this is a fallback")
        return "; ".join(said)


def readiness_of(published: Published | None, lost: int, problem: str = "") -> Readiness:
    """
    Return whether what is published is there and intact.

    Args:
        lost: How many files are known to be missing or altered on disk.
        problem: Why consumers do not see what is published.
    """
    if published is None:
        return Readiness(False, problem="nothing of this source is published yet")
    if lost and not problem:
        files = "file is" if lost == 1 else "files are"
        problem = f"{lost} published {files} missing or altered on disk"
    revision = "" if published.is_filtered else published.revision
    return Readiness(not problem, revision, published.published_at, problem, published.shortfall)


class Record:
    """
    The record of one source and one layout on a volume.

    Attributes:
        published: What the record says, or would say if the volume took it; None if nothing of
            this source is published.
        is_written: Whether the record on disk is the one that this process knows.
        is_of_others: Whether the record that was read does not match the settings here, so that it
            does not count: its files are not those that consumers need, or not where they look.
        is_of_layout: Whether the record that was read is of the layout here.
    """

    def __init__(self, settings: Settings) -> None:
        self._where: dict[str, Any] = {
            "source": settings.source,
            "kind": settings.source_kind,
            "layout": settings.layout,
        }
        if settings.trusted_keys is not None:
            self._where["signed"] = True
        filters = [list(globs) for globs in (settings.include, settings.exclude)]
        self._filters = filters if any(filters) else []
        self._pin = settings.revision
        self._changes: Mapping[str, int] = {}
        self.published: Published | None = None
        self.is_written = True
        self.is_of_others = self.is_of_layout = False

    def read(self, state: int) -> None:
        """
        Read the record from the open `.s3-sync`; one that is missing, malformed or of others says
        nothing.
        """
        self.published, self.is_written = self._read(state), True

    def void(self, state: int) -> None:
        """
        Discard the record: it is unknown which files on disk belong to it.
        """
        self.published = None
        with suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=state)

    def _read(self, state: int) -> Published | None:
        facts = read_facts(NAME, state)
        revision = facts.get("revision")
        self._changes = {name: facts[name] for name in CHANGES if isinstance(facts.get(name), int)}
        self.is_of_layout = facts.get("layout") == self._where["layout"]
        self.is_of_others = bool(facts) and (
            any(facts.get(name) != value for name, value in self._where.items())
            or bool(self._pin and revision != self._pin)
        )
        if self.is_of_others or not isinstance(revision, str):
            return None
        texts = [facts.get(name) for name in ("aim", "name", "fallback", "signed_by")]
        aim, name, fallback, signer = (text if isinstance(text, str) else "" for text in texts)
        missing, at, files = (facts.get(one) for one in ("missing", "published_at", "files"))
        if not name or not isinstance(missing, int) or (missing == 0) != bool(revision):
            return None
        if not isinstance(at, int | float) or not 0 < at < LATEST:
            return None
        count = files if isinstance(files, int) else 0
        is_filtered = facts.get("filters", []) != self._filters
        seen = facts.get("sequence")
        said = Published(revision, aim, name, missing, fallback, float(at), count, is_filtered)
        return said._replace(sequence=seen, signed_by=signer) if isinstance(seen, int) else said

    def follow_link(self, name: str) -> None:
        """
        Correct what is published if a process was killed between swapping the link and recording
        it. With a pin or required signatures nothing counts: that process may have had neither.
        """
        before = self.published
        if before is None or before.name == name:
            return
        if self._pin or "signed" in self._where:
            self.published = None
            return
        revision = "" if name.startswith(PARTIAL) else name
        missing = 0 if revision else 1
        self.published = Published(revision, revision, name, missing, "", before.published_at, 0)

    def write(
        self, volume: Volume, fence: Fence, published: Published, changes: Mapping[str, int]
    ) -> None:
        """
        Replace the record.

        Args:
            changes: The numbers of added, changed and deleted files since the previous publish;
                without any, those of the last record stay.

        Raises:
            OSError: It was not written. This process knows it all the same.
        """
        self.published, self.is_written = published, False
        facts = published._asdict()
        del facts["is_filtered"]
        if not published.sequence:
            del facts["sequence"], facts["signed_by"]
        self._changes = changes or self._changes
        facts |= {**self._changes, **self._where}
        if self._filters:
            facts["filters"] = self._filters
        volume.write_state(NAME, json_text(facts).encode() + b"\n", fence)
        self.is_written = True


def read_published(settings: Settings) -> Published | None:
    """
    Return what is published, without the lock; None if that is nothing, or cannot be read.
    """
    record = Record(settings)
    try:
        with opened(settings.dest_path) as root, opened(RESERVED, root) as state:
            record.read(state)
    except OSError:
        return None
    return record.published


def now() -> float:
    """
    Return the Unix time of a publish, in milliseconds.
    """
    return round(time.time(), 3)
