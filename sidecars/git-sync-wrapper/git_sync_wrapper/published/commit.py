"""
Facts about a commit for people: author, time, subject, and the files that it changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from git_sync_wrapper.git import ask
from sidecar_runtime.printable import printable

TEXT_CHARACTERS = 200
NAMED_PATHS = 20
KINDS = ("added", "changed", "deleted")
# Short: the facts are only for people, and the swap of the link waits for them.
DEADLINE_SECONDS = 5.0

# https://git-scm.com/docs/git-diff-tree#_raw_output_format
_KINDS = {b"A": "added", b"D": "deleted"}


class CommitFacts(NamedTuple):
    """
    git's facts about a commit; empty if git cannot tell.

    Texts are untrusted, but printable here: control characters are shown as escapes.

    Args:
        counts: How many files are ``added``, ``changed`` and ``deleted`` compared with the commit
            that was published before; empty without one, or if git no longer has it.
        paths: The first paths of each kind.
    """

    author: str = ""
    committed_at: str = ""
    subject: str = ""
    counts: Mapping[str, int] = {}
    paths: Mapping[str, list[str]] = {}

    def recorded(self) -> dict[str, object]:
        """
        Return the facts for the record.
        """
        who = {"author": self.author, "committed_at": self.committed_at, "subject": self.subject}
        return {**who, **self.counts, "paths": self.paths}

    def shown(self) -> dict[str, object]:
        """
        Return the facts for the status page.
        """
        commit = {
            name: getattr(self, name)
            for name in ("author", "committed_at", "subject")
            if getattr(self, name)
        }
        changes = {
            kind: f"{count}: {', '.join(self.paths.get(kind, ()))}"
            for kind, count in self.counts.items()
            if count
        }
        found = {"commit": commit, "last_change": changes}
        return {name: facts for name, facts in found.items() if facts}


def read_record(record: Mapping[str, object]) -> CommitFacts:
    """
    Return the facts in a record, which is untrusted: whoever can write to the volume can write it.
    """
    author, at, subject = (
        _text(record.get(name)) for name in ("author", "committed_at", "subject")
    )
    told = {kind: record.get(kind) for kind in KINDS}
    counts = {kind: count for kind, count in told.items() if isinstance(count, int) and count >= 0}
    named = record.get("paths")
    paths = {
        kind: [_text(path) for path in found[:NAMED_PATHS]]
        for kind, found in (named.items() if isinstance(named, dict) else ())
        if kind in counts and isinstance(found, list)
    }
    return CommitFacts(author, at, subject, counts, paths)


def describe(
    git: str, environ: Mapping[str, str], folder: str, commit: str, before: str
) -> CommitFacts:
    """
    Ask git about the commit that is checked out; takes at most twice :data:`DEADLINE_SECONDS`.

    Args:
        before: The commit that was published before it; empty for none.
    """

    def say(*words: str) -> bytes | None:
        return ask(git, environ, folder, *words, deadline_seconds=DEADLINE_SECONDS)

    form = "--format=%an%x00%ct%x00%s"
    said = say("log", "-1", "--no-show-signature", form, commit) or b""
    parts = said.decode(errors="replace").rstrip("\n").split("\0")
    if len(parts) != 3 or not parts[1].isdecimal():
        return CommitFacts()
    try:
        at = datetime.fromtimestamp(int(parts[1]), UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # the author's clock may be arbitrarily wrong
        at = ""
    author, subject = _text(parts[0]), _text(parts[2])
    difference = ("diff-tree", "-r", "-z", "--name-status", "--no-renames", before, commit)
    words = say(*difference) if before else None
    if words is None:
        return CommitFacts(author, at, subject)
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    fields = words.split(b"\0")
    for kind, path in zip(fields[::2], fields[1::2], strict=False):
        found[_KINDS.get(kind, "changed")].append(os.fsdecode(path))
    counts = {kind: len(found[kind]) for kind in KINDS}
    paths = {
        kind: [_text(path) for path in found[kind][:NAMED_PATHS]] for kind in KINDS if found[kind]
    }
    return CommitFacts(author, at, subject, counts, paths)


def _text(found: object) -> str:
    return printable(found)[:TEXT_CHARACTERS] if isinstance(found, str) else ""
