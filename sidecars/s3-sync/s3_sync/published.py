"""
`published.json`: the record of what is published. What it means for consumers: see
:mod:`s3_sync.readiness`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from s3_sync.settings import Settings
from sidecar_runtime.errors import counted, json_text
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import read_facts, write_file

NAME = "published.json"
# Unix time of the year 2286; later times are invalid.
LATEST = 10_000_000_000
# The prefix of the names of partial states.
PARTIAL = "partial-"
# The name of a change that is partially in place; never the name of a snapshot.
UNFINISHED = f"{PARTIAL}unfinished"


class Published(NamedTuple):
    """
    What is published.

    Args:
        revision: The source's revision if it is completely published; else empty.
        aim: The revision that should be published; differs from `revision` while
            partial.
        name: The name of the state, and of its snapshot.
        missing: The number of files missing or out of date, while a change is going on
            also of those to delete; 0 if the state is complete.
        fallback: The refused revision if a fallback is published; else empty.
        published_at: Unix time of the publish.
        files: The number of files after the publish.
        damaged: How many of them are known to be missing or altered on disk.
        sequences: Of a release: the highest sequence seen of each key; that of an empty
            one if none had to sign.
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
    sequences: Mapping[str, int] = {}
    added: int = 0
    changed: int = 0
    deleted: int = 0

    @property
    def shortfall(self) -> str:
        """
        What the state lacks, in words; empty if it is the complete newest revision.
        """
        # In place: it counts the files to delete, too.
        if self.name == UNFINISHED:
            return f"a change of {counted(self.missing, 'file')} is in progress"
        said = []
        if self.missing:
            said.append(f"{are(self.missing, 'file')} missing or out of date")
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
    is_valid = (
        said.name
        and (said.missing == 0) == bool(said.revision)
        and all(type(seen) is int for seen in said.sequences.values())
        and 0 < said.published_at < LATEST
    )
    return said if is_valid else None


class Record:
    """
    The record of one source, one layout and one choice of files, in the open
    `.s3-sync`; one that is missing, malformed, or of other settings says nothing.

    Attributes:
        published: What the record says, or would say if the volume took it; None if
            nothing is published that fits the settings: its files are not those that
            consumers need, or not where they look.
        owner: Whose files are there: of this source and layout, whatever files were
            chosen, of another one, or nobody knows whose, because the record is missing
            or damaged, or the snapshot that it names is gone: then nothing is deleted
            that files of ours would keep, and nothing is approved.
        sequences: Of releases of this source: the highest sequence seen of each key.
    """

    def __init__(self, settings: Settings, state: int) -> None:
        self._state = state
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
        self._fsync = settings.fsync
        self.sequences: Mapping[str, int] = {}
        # What the record says of the same folder, with other settings.
        self._former: dict[str, Any] = {}
        # Whether the record on disk is the one that this process knows.
        self._is_written = True
        facts = read_facts(NAME, state)
        said = parse(facts)
        where = {"filters": None, **self._where}
        differs = {name for name, value in where.items() if facts.get(name) != value}
        is_pinned = not settings.revision or facts.get("revision") == settings.revision
        self.published = said if is_pinned and not differs else None
        self.owner: Literal["ours", "other", "unknown"] = "unknown"
        if said is None:
            return
        self.owner = "ours" if differs <= {"filters"} else "other"
        if differs and "layout" not in differs:
            self._former = facts
        if self.owner == "ours":
            self.sequences = said.sequences

    def write(self, fence: Fence, published: Published) -> None:
        """
        Replace the record, unless it says this already.

        Raises:
            OSError: It was not written. This process knows it all the same.
            CycleAbandoned: The fence was revoked; nothing is known of it.
        """
        if self._is_written and published == self.published:
            return
        facts = published._asdict()
        signer = signer_of(published.sequences)
        if published.sequences:
            facts |= {"sequence": published.sequences[signer], "signed_by": signer}
        else:
            del facts["sequences"]
        with fence:
            self.published = published
            self.owner = "ours"
            self._is_written = False
            self._replace(facts | self._where)
        self._is_written = True

    def doubt(self, fence: Fence, changes: int) -> None:
        """
        Let a record of other settings say that so many files are changing: if those
        settings come back before this change is over, it would call a mix complete. It
        has no aim then.

        Raises:
            OSError, CycleAbandoned: It was not written.
        """
        if self._former and changes:
            said = {"name": UNFINISHED, "revision": "", "aim": "", "missing": changes}
            with fence:
                self._replace(self._former | said)

    def _replace(self, facts: Mapping[str, object]) -> None:
        content = json_text(facts).encode() + b"\n"
        write_file(NAME, content, 0o664, fsync=self._fsync, dir_fd=self._state)


def signer_of(sequences: Mapping[str, int]) -> str:
    """
    Return the key that signed the highest sequence; empty if none had to.
    """
    return max(sequences, key=sequences.__getitem__, default="")


def are(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def now() -> float:
    """
    Return the Unix time of a publish, in milliseconds.
    """
    return round(time.time(), 3)
