"""
The record on the volume: which commit is published, and from where.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from typing import Any, NamedTuple

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.published.commit import CommitFacts, read_record
from git_sync_wrapper.published.tree import opened
from sidecar_runtime.printable import json_text
from sidecar_runtime.volume.files import read_facts, stat_in, write_file

STORE = ".snapshots"
RECORD = "published.json"


class Published(NamedTuple):
    """
    The published commit.

    Args:
        commit: Its hash; empty if nothing is published.
        made_by: A digest of the settings that affect its files; empty if not recorded.
        published_at: Unix time.
        fallback: The refused commit that this one replaces; empty if this is no fallback.
        facts: Facts about the commit for people.
        repo: The repository it was published from, for display; empty if not recorded.
        ref: The ref it was published for; empty if not recorded.
        refused: The newer commit that the gate refuses; empty if there is none.
    """

    commit: str = ""
    made_by: str = ""
    published_at: float | None = None
    fallback: str = ""
    facts: CommitFacts = CommitFacts()
    repo: str = ""
    ref: str = ""
    refused: str = ""


def look(options: Options) -> Published:
    """
    Return the published commit, without creating, locking or keeping anything open.
    """
    store, commit = os.path.split(os.path.realpath(options.link))
    if store == os.path.join(options.root, STORE):
        with suppress(OSError), opened(store) as folder:
            return read(commit, folder)
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
    made_by, fallback, repo, ref, refused = (str(record.get(name, "")) for name in names)
    at = _moment(record.get("published_at"))
    return Published(commit, made_by, at, fallback, read_record(record), repo, ref, refused)


def recorded(store: int) -> str:
    """
    Return the recorded commit of the open store, even if its snapshot does not exist; or "".
    """
    return str(read_facts(RECORD, store).get("revision", ""))


def write(
    commit: str,
    made_by: str,
    options: Options,
    store: int,
    *,
    fallback: str,
    facts: CommitFacts,
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
        "repo": options.shown_repo,
        "ref": options.ref,
        "made_by": made_by,
        "fallback": fallback,
        **facts.recorded(),
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


def _moment(found: object) -> float | None:
    with suppress(OverflowError):
        if isinstance(found, int | float) and math.isfinite(found):
            return float(found)
    return None
