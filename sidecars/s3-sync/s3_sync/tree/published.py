"""
What is published: the record of the last complete cycle, and whether it still holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from s3_sync.tree.managed import Managed
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Readiness
from sidecar_runtime.volume.files import read_facts

NAME = "published.json"
# Unix time of the year 2286; anything beyond is a joke.
LATEST = 10_000_000_000


# How the names of snapshots begin that are not all of a revision.
PARTIAL = "partial-"
UNFINISHED = f"{PARTIAL}unfinished"
"""A change of which some files are in place; no snapshot is called so."""


def is_partial(name: str) -> bool:
    """
    Whether it is the name of a part of a revision.
    """
    return name.startswith(PARTIAL)


def partial_name(files: Mapping[str, Managed]) -> str:
    """
    Return the name of these files, the same for the same.
    """
    digest = hashlib.blake2b(digest_size=6)
    for path, managed in sorted(files.items()):
        digest.update(f"{path}\0{managed.etag}\0{managed.size_bytes}\0".encode())
    return f"{PARTIAL}{digest.hexdigest()}"


class Published:
    """
    The record in `.s3-sync/published.json`, for one source and one layout.

    Args:
        kind: ``listing`` or ``release``.
        pin: The one revision that counts; empty for any.
        is_signed: Whether only what was signed counts.
        filters: Which keys are taken; what was published by others is a part.

    Attributes:
        revision: Of the source when all of it was published; empty where nothing is, or a part.
        aim: The revision that was to be published; with a part of it, this is not `revision`.
        name: What a snapshot of it is called.
        lacking: How many files of the source are not there as it has them; 0 where it is complete.
        fallback: The revision that the gate refused, where this one is published instead.
        at: Unix time of that publish; None where nothing is.
        files: How many there were after it.
        missing: How many of them are not even listed any more.
        is_filtered: Whether the filters were others then.
        is_of_others: Whether what is on record does not count, because of what is set here.
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
        Take over what a process recorded in the open `.s3-sync`.

        The record of another bucket or prefix, of another kind of source, of another layout, of
        another revision than the pinned one, or, where signatures are demanded, of what nobody
        trusted has signed, counts as none: what it speaks of is not what our consumers need, or not
        where they look.
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
        is_of_0_1 = facts.keys().isdisjoint(("aim", "name", "lacking"))
        if is_of_0_1 and self._where["kind"] == "listing":  # its releases have other names
            facts = {**facts, "aim": revision, "name": revision, "lacking": 0}
        texts = [facts.get(name) for name in ("aim", "name", "fallback")]
        aim, name, fallback = (text if isinstance(text, str) else "" for text in texts)
        lacking, at = facts.get("lacking"), facts.get("published_at")
        if not name:
            return
        if not isinstance(lacking, int) or (lacking == 0) != bool(revision):
            return
        if isinstance(at, int | float) and 0 < at < LATEST:
            self.revision, self.aim, self.name = revision, aim, name
            self.lacking, self.fallback, self.at = lacking, fallback, float(at)
            files = facts.get("files")
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
        lacking: int = 0,
        fallback: str = "",
    ) -> None:
        """
        Write down what is published.

        Args:
            files: How many there are.
            changes: How many files were added, changed and deleted since what was published before.
        """
        at = round(time.time(), 3)
        revision = "" if lacking else name
        facts = {
            "revision": revision,
            "aim": aim,
            "name": name,
            "lacking": lacking,
            "fallback": fallback,
            "published_at": at,
            "files": files,
            **changes,
            **self._where,
            **({"filters": self._filters} if self._filters else {}),
        }
        volume.write_state(NAME, json.dumps(facts).encode() + b"\n", fence)
        self.revision, self.aim, self.name = revision, aim, name
        self.lacking, self.fallback, self.at = lacking, fallback, at
        self.files, self.missing = files, 0
        self.is_filtered = False

    def count(self, files: int) -> None:
        """
        Take over how many files are listed: a list forgets its last one where that is gone.
        """
        self.missing = max(0, self.files - files) if self.name != UNFINISHED else 0

    def correct(self, name: str) -> None:
        """
        Take over what is shown, where the process was killed between showing and recording it.

        Not where a revision is pinned or signatures are demanded: it may have known of neither.
        """
        if name != self.name and (self._pin or "signed" in self._where):
            self._clear()
        if self.at is not None and name != self.name:
            self.name = name
            self.revision, self.lacking = ("", 1) if is_partial(name) else (name, 0)
            self.aim = self.revision
            self.fallback, self.files = "", 0

    def void(self, volume: Volume) -> None:
        """
        Forget it: what it speaks of cannot be told from what is there.
        """
        self._clear()
        with suppress(FileNotFoundError):
            os.unlink(NAME, dir_fd=volume.state)

    def readiness(self, damaged: Collection[str], problem: str = "") -> Readiness:
        """
        Return whether what consumers need is there, given the files known to be damaged.
        """
        if self.at is None:
            return Readiness(False, problem="nothing of this source is published yet")
        if (wrong := len(damaged) + self.missing) and not problem:
            problem = f"{wrong} published files are missing or altered on disk"
        return Readiness(not problem, self.revision, self.at, problem, self.shortfall)

    @property
    def shortfall(self) -> str:
        """
        What it is short of, in words; empty where it is all of the newest revision.
        """
        said = []
        if self.is_filtered:
            said.append("S3_SYNC_INCLUDE or S3_SYNC_EXCLUDE has changed since this was published")
        if self.lacking:
            files = "file is" if self.lacking == 1 else "files are"
            said.append(f"{self.lacking} {files} missing or out of date")
        if self.fallback:
            said.append(f"the gate refused {self.fallback}, so this is a fallback")
        return "; ".join(said)

    def _clear(self) -> None:
        self.revision = self.aim = self.name = self.fallback = ""
        self.lacking = self.files = self.missing = 0
        self.at = None
        self.is_of_others = self.is_filtered = False
