"""
What people want to know of a commit: who, when, what about, and which files it changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from git_sync_wrapper.git import ask

TEXT_CHARACTERS = 200
NAMED_PATHS = 20
# It is only for people, and a cycle waits for it.
DEADLINE_SECONDS = 5.0

# https://git-scm.com/docs/git-diff-tree#_raw_output_format
_KINDS = {b"A": "added", b"D": "deleted"}


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """
    What git says of a commit; empty where it cannot tell.

    Args:
        counts: How many files are ``added``, ``changed`` and ``deleted``, against what was shown
            before; empty where nothing was.
        paths: The first of each kind.
    """

    author: str = ""
    committed_at: str = ""
    subject: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    paths: Mapping[str, list[str]] = field(default_factory=dict)

    def shown(self) -> dict[str, object]:
        """
        Return it for the status page.
        """
        commit = {
            name: getattr(self, name)
            for name in ("author", "committed_at", "subject")
            if getattr(self, name)
        }
        changes = {
            kind: f"{count}: {', '.join(self.paths[kind])}" for kind, count in self.counts.items()
        }
        found = {"commit": commit, "last_change": changes}
        return {name: facts for name, facts in found.items() if facts}


def describe(
    git: str, environ: Mapping[str, str], folder: str, commit: str, before: str
) -> CommitFacts:
    """
    Ask git about the commit that a folder shows; takes :data:`DEADLINE_SECONDS` at most, twice.

    Args:
        commit: Empty for none.
        before: The commit that was shown before it; empty for none.
    """
    if not commit:
        return CommitFacts()

    def say(*words: str) -> bytes:
        return ask(git, environ, folder, *words, deadline_seconds=DEADLINE_SECONDS) or b""

    form = "--format=%an%x00%ct%x00%s"
    said = say("log", "-1", "--no-show-signature", form, commit)
    parts = said.decode(errors="replace").rstrip("\n").split("\0")
    if len(parts) != 3 or not parts[1].isdecimal():
        return CommitFacts()
    try:
        at = datetime.fromtimestamp(int(parts[1]), UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # the author's clock may say anything
        at = ""
    author, subject = parts[0][:TEXT_CHARACTERS], parts[2][:TEXT_CHARACTERS]
    if not before:
        return CommitFacts(author, at, subject)
    words = say("diff-tree", "-r", "-z", "--name-status", "--no-renames", before, commit)
    found: dict[str, list[str]] = {}
    fields = words.split(b"\0")
    for kind, path in zip(fields[::2], fields[1::2], strict=False):
        found.setdefault(_KINDS.get(kind, "changed"), []).append(os.fsdecode(path))
    counts = {kind: len(found[kind]) for kind in sorted(found)}
    paths = {kind: found[kind][:NAMED_PATHS] for kind in counts}
    return CommitFacts(author, at, subject, counts, paths)
