"""
The record on the volume: which commit is published, from where, and what people want to know of it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from git_sync_wrapper.git import Git, GitFailed
from git_sync_wrapper.options import Options
from sidecar_runtime.errors import json_text, printable
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import read_facts, stat_in, write_file
from sidecar_runtime.volume.snapshots import FOLDER_FLAGS

STORE = ".snapshots"
RECORD = "published.json"
TEXT_CHARACTERS = 200
NAMED_PATHS = 20


class Published(NamedTuple):
    """
    The published commit.

    Args:
        commit: Its hash; empty if nothing is published.
        made_by: A digest of the settings that affect its files; empty if not recorded.
        published_at: Unix time.
        fallback: The refused commit that this one replaces; empty if this is no fallback.
        repo: The repository it was published from, for display; empty if not recorded.
        ref: The ref it was published for; empty if not recorded.
        refused: The newer commit that the gate refuses; empty if there is none.
        facts: Author, time, subject and changes, for people.
    """

    commit: str = ""
    made_by: str = ""
    published_at: float | None = None
    fallback: str = ""
    repo: str = ""
    ref: str = ""
    refused: str = ""
    facts: Mapping[str, Any] = {}

    def problem(self, options: Options) -> str:
        """
        Return why this commit is wrong for consumers: it is not the pinned one, or is of another
        repository; empty if it is not. Facts that are not recorded count as equal.
        """
        link, ref = options.link, options.ref
        # The hash of an annotated tag pins the commit that the tag names.
        if options.is_pinned and ref not in (self.commit, self.ref):
            return f"{link} shows {self.commit}, but GITSYNC_REF pins {ref}"
        if self.is_elsewhere(options):
            shown = f"{link} shows {self.commit} of {self.repo}"
            return f"{shown}, but GITSYNC_REPO is another repository"
        return ""

    def shortfall(self, options: Options) -> str:
        """
        Return why this commit is good, but not what the settings ask for now; or "".
        """
        if not options.is_pinned and self.ref not in ("", options.ref):
            was = f"{self.commit} was published for the ref {self.ref}"
            return f"{was}, but GITSYNC_REF is {options.ref}"
        if not self.is_made_as_asked(options):
            return f"{self.commit} was checked out with other git-sync settings"
        if self.fallback:
            return f"the gate refused {self.fallback}, so this is a fallback"
        return ""

    def is_elsewhere(self, options: Options) -> bool:
        """
        Whether it is of another repository; a pinned commit is the same in each.
        """
        return not options.is_pinned and self.repo not in ("", options.hide(options.repo))

    def is_made_as_asked(self, options: Options) -> bool:
        """
        Whether it was made with the current values of the settings that affect its files.
        """
        return self.made_by in ("", options.made_by())


def look(options: Options) -> Published:
    """
    Return the published commit, without creating, locking or keeping anything open.
    """
    store, commit = os.path.split(os.path.realpath(options.link))
    if store == os.path.join(options.root, STORE):
        with suppress(OSError):
            folder = os.open(store, FOLDER_FLAGS)
            try:
                return read(commit, folder)
            finally:
                os.close(folder)
    return Published()


def read(commit: str, store: int) -> Published:
    """
    Return a snapshot with its record in the open store. The record is untrusted: whoever can write
    to the volume can write it.
    """
    found = stat_in(commit, store)
    if found is None:  # the link leads to a commit that was removed
        return Published()
    record = read_facts(RECORD, store)
    if record.get("revision") != commit:  # killed between the record and the link
        return Published(commit, published_at=found.st_mtime)
    names = ("made_by", "fallback", "repo", "ref", "refused")
    said = {name: str(record.get(name, "")) for name in names}
    at = record.get("published_at")
    is_time = isinstance(at, int | float) and math.isfinite(at)
    return Published(commit, published_at=at if is_time else None, facts=_kept(record), **said)


def _kept(record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("author", "committed_at", "subject", "changed", "lfs")
    return {name: record[name] for name in names if name in record}


def recorded(store: int) -> str:
    """
    Return the recorded commit of the open store, even if its snapshot does not exist; or "".
    """
    return str(read_facts(RECORD, store).get("revision", ""))


def write(
    commit: str,
    options: Options,
    store: int,
    facts: Mapping[str, Any],
    *,
    fallback: str,
    fsync: bool,
) -> None:
    """
    Record a commit as published from now on.

    Raises:
        OSError: The record could not be written; the previous one stays.
    """
    record = {
        "revision": commit,
        "published_at": round(time.time(), 3),
        "repo": options.hide(options.repo),
        "ref": options.ref,
        "made_by": options.made_by(),
        "fallback": fallback,
        **facts,
    }
    _write(record, store, fsync=fsync)


def refuse(commit: str, store: int, *, fsync: bool) -> None:
    """
    Add to the record that the gate refuses a newer commit, so that one-shots do not wait for it.

    Raises:
        OSError: As for :func:`write`.
    """
    record = read_facts(RECORD, store)
    if record and record.get("refused") != commit:
        _write({**record, "refused": commit}, store, fsync=fsync)


def _write(record: dict[str, Any], store: int, *, fsync: bool) -> None:
    content = json_text(record).encode() + b"\n"
    write_file(RECORD, content, 0o664, fsync=fsync, dir_fd=store)


# --- for people


def describe(git: Git, folder: str, commit: str, fence: Fence) -> dict[str, Any]:
    """
    Ask git about the commit that is checked out; empty if it cannot tell.

    Raises:
        CycleAbandoned: The fence was revoked.
    """
    form = "--format=%an%x00%ct%x00%s"
    try:
        said = git.ask(["log", "-1", "--no-show-signature", form, commit], folder, fence)
        author, at, subject = said.decode(errors="replace").rstrip("\n").split("\0")
        moment = datetime.fromtimestamp(int(at), UTC).isoformat(timespec="seconds")
    except (GitFailed, ValueError, OverflowError, OSError):
        return {}
    return {"author": _text(author), "committed_at": moment, "subject": _text(subject)}


def pointers(facts: Mapping[str, Any]) -> list[str]:
    """
    Return the published files that are pointers of Git LFS.
    """
    found = facts.get("lfs")
    return [_text(str(path)) for path in found] if isinstance(found, list) else []


def details(facts: Mapping[str, Any]) -> dict[str, object]:
    """
    Return the facts in a record, which is untrusted, as the status page shows them.
    """
    names = ("author", "committed_at", "subject")
    commit = {name: _text(str(facts[name])) for name in names if facts.get(name)}
    changed = facts.get("changed")
    paths = _text(", ".join(map(str, changed))) if isinstance(changed, list) else ""
    found = {"commit": commit, "last_change": paths}
    return {name: shown for name, shown in found.items() if shown}


def _text(found: str) -> str:
    return printable(found)[:TEXT_CHARACTERS]
