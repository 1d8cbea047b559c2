"""
The published state: the record of the last complete cycle, and whether it is still valid.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from s3_sync.tree.journal import Managed
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.printable import json_text
from sidecar_runtime.volume.files import read_facts

NAME = "published.json"
# Unix time of the year 2286; later times are invalid.
LATEST = 10_000_000_000


# The prefix of the names of partial states.
PARTIAL = "partial-"
UNFINISHED = f"{PARTIAL}unfinished"
"""The name of a change that is partially in place; never the name of a snapshot."""


def is_partial(name: str) -> bool:
    """
    Whether it is the name of a partial state.
    """
    return name.startswith(PARTIAL)


def partial_name(files: Mapping[str, Managed]) -> str:
    """
    Return the name of a partial state; equal files have equal names.
    """
    digest = hashlib.blake2b(digest_size=6)
    for path, managed in sorted(files.items()):
        digest.update(f"{path}\0{managed.etag}\0{managed.size_bytes}\0".encode())
    return f"{PARTIAL}{digest.hexdigest()}"


class _State(NamedTuple):
    """
    What `published.json` says about the files.
    """

    revision: str
    aim: str
    name: str
    missing: int
    fallback: str
    published_at: float | None
    files: int
    mark: str


class Published:
    """
    The record in `.s3-sync/published.json`, for one source and one layout.

    Args:
        kind: ``listing`` or ``release``.
        pin: The only revision that counts; empty for any.
        is_signed: Whether only signed releases count.
        filters: The key filters; a state published with other filters is partial.

    Attributes:
        revision: The source's revision if it is completely published; else empty.
        aim: The revision that should be published; differs from `revision` while partial.
        name: The name of the state, and of its snapshot.
        missing: The number of files missing or out of date; 0 if the state is complete.
        fallback: The refused revision if a fallback is published; else empty.
        at: Unix time of the publish; None if nothing is published.
        files: The number of files after the publish.
        unlisted: How many of these files are no longer listed.
        is_filtered: Whether the state was published with other filters.
        is_of_others: Whether the record does not match the settings here, and so does not count.
        mark: The name of the files that :meth:`Volume.begin_showing` noted for this state.
        is_written: Whether the record on disk is this one.
    """

    def __init__(
        self,
        source: str,
        layout: str,
        kind: str = "listing",
        pin: str = "",
        *,
        is_signed: bool = False,
        filters: Sequence[Sequence[str]] = (),
    ) -> None:
        self._where: dict[str, object] = {"source": source, "kind": kind, "layout": layout}
        self._filters = [list(globs) for globs in filters] if any(filters) else []
        if is_signed:
            self._where["signed"] = True
        self._pin = pin
        self.at: float | None
        self._clear()

    def read(self, state: int) -> None:
        """
        Load the record from the open `.s3-sync`.

        A record does not count if its bucket, prefix, kind of source or layout differs from the
        settings, if its revision is not the pinned one, or if signatures are required and it is not
        signed: its files are not those that consumers need, or not where they look.
        """
        self._clear()
        facts = read_facts(NAME, state)
        revision = facts.get("revision")
        self.is_of_others = bool(facts) and (
            any(facts.get(name) != value for name, value in self._where.items())
            or bool(self._pin and revision != self._pin)
        )
        if self.is_of_others or not isinstance(revision, str):
            return
        is_of_0_1 = facts.keys().isdisjoint(("aim", "name", "missing"))
        if is_of_0_1 and self._where["kind"] == "listing":  # releases of 0.1 have other names
            facts = {**facts, "aim": revision, "name": revision, "missing": 0}
        texts = [facts.get(name) for name in ("aim", "name", "fallback")]
        aim, name, fallback = (text if isinstance(text, str) else "" for text in texts)
        missing, at = facts.get("missing"), facts.get("published_at")
        if not name:
            return
        if not isinstance(missing, int) or (missing == 0) != bool(revision):
            return
        if isinstance(at, int | float) and 0 < at < LATEST:
            self.revision, self.aim, self.name = revision, aim, name
            self.missing, self.fallback, self.at = missing, fallback, float(at)
            mark, files = facts.get("mark"), facts.get("files")
            self.mark = mark if isinstance(mark, str) else ""
            self.files = files if isinstance(files, int) else 0
            self.is_filtered = facts.get("filters", []) != self._filters
            if self.is_filtered:
                self.revision = ""

    def record(
        self,
        volume: Volume,
        fence: Fence,
        changes: Mapping[str, int],
        *,
        name: str,
        aim: str,
        files: int,
        missing: int = 0,
        fallback: str = "",
        mark: str = "",
    ) -> None:
        """
        Record the published state.

        Args:
            files: The number of published files.
            changes: The numbers of added, changed and deleted files since the previous publish.

        Raises:
            OSError: It was not written. This process knows it all the same, unless it is
                unfinished: that is recorded before the first file changes.
        """
        revision, at = "" if missing else name, round(time.time(), 3)
        state = _State(revision, aim, name, missing, fallback, at, files, mark)
        try:
            self._write(volume, fence, state, changes)
        except OSError:
            if name != UNFINISHED:
                self._know(state)
            raise
        self._know(state)

    def settle(
        self, volume: Volume, fence: Fence, changes: Mapping[str, int], *, name: str, files: int
    ) -> None:
        """
        Record files that are completely published, unless they are recorded: by an interrupted
        publish, so that only the source can tell their revision.

        Args:
            name: The name of the files that :meth:`Volume.begin_showing` noted.

        Raises:
            OSError: It was not written; this process still knows it.
        """
        if self.mark != name:
            self.correct(name)
            self.mark, self.files, self.unlisted = name, files, 0
            self.is_written = False
        if self.at is None:
            with fence:
                if read_facts(NAME, volume.state).get("layout") == self._where["layout"]:
                    self.void(volume)
        elif not self.is_written:
            self._write(volume, fence, self._state, changes)

    def count(self, files: int) -> None:
        """
        Compare the number of listed files with the record: a list may have dropped a lost file.
        """
        self.unlisted = max(0, self.files - files) if self.name != UNFINISHED else 0

    def correct(self, name: str) -> None:
        """
        Correct the record if a process was killed between swapping the link and recording it.

        With a pinned revision or required signatures, discard the record instead: the killed
        process may have had neither setting.
        """
        if name != self.name and (self._pin or "signed" in self._where):
            self._clear()
        if self.at is not None and name != self.name:
            self.name = name
            self.revision, self.missing = ("", 1) if is_partial(name) else (name, 0)
            self.aim = self.revision
            self.fallback, self.files = "", 0

    def void(self, volume: Volume) -> None:
        """
        Discard the record: it is unknown which files on disk belong to it.
        """
        self._clear()
        with suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=volume.state)

    def readiness(self, damaged: Collection[str], problem: str = "") -> Readiness:
        """
        Return whether the published files are intact, given the files known to be damaged.
        """
        if self.at is None:
            return Readiness(False, problem="nothing of this source is published yet")
        if (wrong := len(damaged) + self.unlisted) and not problem:
            files = "file is" if wrong == 1 else "files are"
            problem = f"{wrong} published {files} missing or altered on disk"
        return Readiness(not problem, self.revision, self.at, problem, self.shortfall)

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

    @property
    def _state(self) -> _State:
        shown = self.revision, self.aim, self.name, self.missing, self.fallback
        return _State(*shown, self.at, self.files, self.mark)

    def _know(self, state: _State) -> None:
        self.revision, self.aim, self.name, self.missing, self.fallback = state[:5]
        self.at, self.files, self.mark = state[5:]
        self.unlisted, self.is_filtered = 0, False

    def _write(
        self, volume: Volume, fence: Fence, state: _State, changes: Mapping[str, int]
    ) -> None:
        facts = {
            **state._asdict(),
            **changes,
            **self._where,
            **({"filters": self._filters} if self._filters else {}),
        }
        if not state.mark:
            del facts["mark"]
        self.is_written = False
        volume.write_state(NAME, json_text(facts).encode() + b"\n", fence)
        self.is_written = True

    def _clear(self) -> None:
        self.revision = self.aim = self.name = self.fallback = self.mark = ""
        self.missing = self.files = self.unlisted = 0
        self.at = None
        self.is_of_others = self.is_filtered = False
        self.is_written = True
