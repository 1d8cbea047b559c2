"""
What people want to know of a commit: who, when, what about, and which files it changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from git_sync_wrapper.git import ask

SUBJECT_CHARACTERS = 200
NAMED_PATHS = 20

# https://git-scm.com/docs/git-diff-tree#_raw_output_format
_KINDS = {b"A": "added", b"D": "deleted"}


@dataclass(frozen=True, slots=True)
class CommitFacts:
    """
    What git says of a commit; empty where it cannot tell.

    Args:
        changes: Paths by ``added``, ``changed`` and ``deleted``, against what was shown before.
    """

    author: str = ""
    committed_at: str = ""
    subject: str = ""
    changes: Mapping[str, list[str]] = field(default_factory=dict)

    def shown(self) -> dict[str, object]:
        """
        Return it for the status page, with the first paths of each kind.
        """
        commit = {
            name: getattr(self, name)
            for name in ("author", "committed_at", "subject")
            if getattr(self, name)
        }
        changes = {
            kind: f"{len(paths)}: {', '.join(paths[:NAMED_PATHS])}"
            for kind, paths in self.changes.items()
        }
        found = {"commit": commit, "last_change": changes}
        return {name: facts for name, facts in found.items() if facts}


def describe(
    git: str, environ: Mapping[str, str], folder: str, commit: str, before: str
) -> CommitFacts:
    """
    Ask git about the commit that a folder shows.

    Args:
        commit: Empty for none.
        before: The commit that was shown before it; empty for none.
    """
    if not commit:
        return CommitFacts()
    form = "--format=%an%x00%ct%x00%s"
    said = ask(git, environ, folder, "log", "-1", "--no-show-signature", form, commit)
    parts = (said or b"").decode(errors="replace").rstrip("\n").split("\0")
    if len(parts) != 3 or not parts[1].isdecimal():
        return CommitFacts()
    try:
        at = datetime.fromtimestamp(int(parts[1]), UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # the author's clock may say anything
        at = ""
    changes = _changes(git, environ, folder, commit, before) if before else {}
    return CommitFacts(parts[0], at, parts[2][:SUBJECT_CHARACTERS], changes)


def _changes(
    git: str, environ: Mapping[str, str], folder: str, commit: str, before: str
) -> dict[str, list[str]]:
    difference = ("diff-tree", "-r", "-z", "--name-status", "--no-renames", before, commit)
    words = (ask(git, environ, folder, *difference) or b"").split(b"\0")
    found: dict[str, list[str]] = {}
    for kind, path in zip(words[::2], words[1::2], strict=False):
        found.setdefault(_KINDS.get(kind, "changed"), []).append(os.fsdecode(path))
    return dict(sorted(found.items()))
