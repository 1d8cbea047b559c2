"""
A snapshot of a commit on the volume: its files, which are links, the list of them, and
the record of which one is published.

No link is followed, and folders are walked through open ones: others may write to the
volume, and a path may be longer than the kernel accepts.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from git_sync_wrapper.git import Git, GitFailed
from git_sync_wrapper.options import Options
from git_sync_wrapper.work_folder import GIT, ROOT, STORE
from sidecar_runtime.errors import json_text, printable
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import (
    FACTS_BYTES,
    read_facts,
    read_file,
    stat_in,
    write_file,
)
from sidecar_runtime.volume.own import walk, write_own
from sidecar_runtime.volume.snapshots import (
    FOLDER_MODE,
    OLD_FILE,
    link_file,
    opened,
)

RECORD = "published.json"
# What a record of the same commit keeps.
FACTS = (
    "author",
    "committed_at",
    "subject",
    "published_at",
    "changed",
    "unfiltered",
)
TEXT_CHARACTERS = 200
NAMED_PATHS = 20
CHUNK_BYTES = 1 << 15
LIST_BYTES = 64 << 20
"""The limit of a list, enough for 350,000 files; larger lists are not used."""
LIST_MARKS = LIST_BYTES // 32
"""And of its commas and brackets: a file has five. More would take gigabytes."""
# The kubelet adds these rights to each file when it mounts a volume with an fsGroup,
# and a setgid bit to each folder: kubernetes/kubernetes, pkg/volume/volume_linux.go.
GROUP_RIGHTS = 0o660
RIGHTS = 0o7777


class Row(NamedTuple):
    """
    A file, symlink or folder: ``st_mode``, and of all but folders what changes with the
    content.
    """

    mode: int
    inode: int = 0
    size_bytes: int = 0
    mtime_ns: int = 0


Rows: TypeAlias = dict[str, Row]


# --- the list


def rows_of(top: int) -> Rows:
    """
    List everything in an open folder but git's own files.

    Raises:
        OSError: A folder cannot be read.
    """
    rows = {path: _row(found) for path, _, name, found in walk(top) if name != GIT}
    return {"": _row(os.fstat(top)), **rows}


def _row(found: os.stat_result) -> Row:
    if stat.S_ISDIR(found.st_mode):
        return Row(found.st_mode)
    return Row(found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns)


def damaged(rows: Rows, top: int) -> list[str]:
    """
    Return what is missing or not as it was in an open folder. More files and more
    rights are no damage: a mount with an fsGroup adds rights.
    """
    now: Rows = {}
    with suppress(OSError):  # a folder that was closed
        now = rows_of(top)
    return sorted(
        path or "." for path, row in rows.items() if not _is_same(row, now.get(path))
    )


def _is_same(row: Row, now: Row | None) -> bool:
    # A listed number may be of any size: the functions of `stat` would refuse it.
    if now is None or (row.mode ^ now.mode) & ~RIGHTS:
        return False
    lost_rights = row.mode & ~now.mode
    return not lost_rights and row[1:] == now[1:]


def read_rows(name: str, folder: int) -> Rows | None:
    """
    Return a list; None if there is none, or if it is invalid: whoever can write to the
    volume can write it, but its paths and numbers are only compared.
    """
    try:
        text = read_file(name, LIST_BYTES, dir_fd=folder)
        if sum(map(text.count, b",[{")) > LIST_MARKS:
            return None
        rows = {path: Row(*row) for path, row in json.loads(text).items()}
        numbers = chain.from_iterable(rows.values())
        return rows if all(type(number) is int for number in numbers) else None
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return None


# --- the files


def commit_of(name: str) -> str:
    """
    Return the commit of a snapshot's name: a hash, or for another copy of it
    ``HASH.2``.
    """
    return name.partition(".")[0]


def compare(
    checkout: int, shown: int | None
) -> Iterator[tuple[str, int, str, os.stat_result, bool]]:
    """
    Yield what is in a checkout, as :func:`walk` does, and whether it is a file that is
    not equal to the one at the same path of what is shown.
    """
    for path, folder, name, found in walk(checkout):
        is_file = name != GIT and not stat.S_ISDIR(found.st_mode)
        is_changed = is_file and (
            shown is None or not _is_equal(name, folder, found, path, shown)
        )
        yield path, folder, name, found, is_changed


def changes(checkout: int, shown: int | None) -> list[str]:
    """
    Return the files of a checkout that are not equal to the shown ones.
    """
    return sorted(
        path for path, *_, is_changed in compare(checkout, shown) if is_changed
    )


def is_copy(checkout: int, kept: int, rows: Rows) -> bool:
    """
    Whether a kept snapshot is undamaged and equal to a checkout.
    """
    return (
        not damaged(rows, kept)
        and rows.keys() == rows_of(checkout).keys()
        and not changes(checkout, kept)
    )


def build(checkout: int, new: int, shown: int | None) -> list[str]:
    """
    Fill an open, empty folder with links: to the file that is shown if it is equal, so
    that it keeps its times and needs no space, or to that of the checkout. The pointers
    to git's repository lead there from the new place.

    Returns:
        The files that are not the shown ones.

    Raises:
        OSError: Something cannot be read, or the disk is full.
    """
    changed = []
    for path, folder, name, found, is_changed in compare(checkout, shown):
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(path, FOLDER_MODE, dir_fd=new)
        elif name == GIT:
            pointer = read_file(GIT, FACTS_BYTES, dir_fd=folder)
            pointer = pointer.replace(b"../.git/", f"../{ROOT}/.git/".encode(), 1)
            write_file(path, pointer, 0o644, fsync=False, dir_fd=new)
        elif is_changed or shown is None:
            link_file(name, folder, path, new)
            changed.append(path)
        else:
            link_file(path, shown, path, new)
    return sorted(changed)


def _is_equal(
    name: str, folder: int, mine: os.stat_result, path: str, shown: int
) -> bool:
    """
    Whether a file of the checkout is equal to that at the same path of what is shown.
    Equal blobs may be checked out differently (`.gitattributes`), so git cannot tell.
    """
    theirs = stat_in(path, shown)
    if theirs is None or mine.st_size != theirs.st_size:
        return False
    if theirs.st_mode not in (mine.st_mode, mine.st_mode | GROUP_RIGHTS):
        return False
    try:
        if stat.S_ISLNK(mine.st_mode):
            return os.readlink(name, dir_fd=folder) == os.readlink(path, dir_fd=shown)
        with (
            opened(name, folder, OLD_FILE) as one,
            opened(path, shown, OLD_FILE) as other,
        ):
            while (chunk := os.read(one, CHUNK_BYTES)) == os.read(other, CHUNK_BYTES):
                if len(chunk) < CHUNK_BYTES:
                    return True
    except OSError:  # a bad disk block, or a file that was closed
        pass
    return False


def flush(top: int) -> None:
    """
    Flush the file system of an open folder to disk: file by file it would take seconds.

    Raises:
        OSError: The disk fails.
    """
    if ctypes.CDLL(None, use_errno=True).syncfs(top) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# --- the record


class Published(NamedTuple):
    """
    The published commit.

    Args:
        commit: Its hash; empty if nothing is published.
        name: The snapshot that the link shows.
        made_by: The flags that affect its files; empty if not recorded.
        published_at: Unix time; None if nothing is published.
        fallback: The refused commit that this one replaces; empty if this is no
            fallback.
        repo: The repository it was published from, for display; empty if not recorded.
        ref: The ref it was published for; empty if not recorded.
        refused: The newer commit that the gate refuses; empty if there is none.
        facts: Author, times, subject and changes, for people.
    """

    commit: str = ""
    name: str = ""
    made_by: str = ""
    published_at: float | None = None
    fallback: str = ""
    repo: str = ""
    ref: str = ""
    refused: str = ""
    facts: Mapping[str, Any] = {}

    def problem(self, options: Options) -> str:
        """
        Return why this commit is wrong for consumers: it is not the pinned one, or is
        of another repository; empty if it is not. Facts that are not recorded count as
        equal.
        """
        # The hash of an annotated tag pins the commit that the tag names.
        shows = f"{options.link} shows {self.commit}"
        if options.is_pinned and options.ref not in (self.commit, self.ref):
            return f"{shows}, but GITSYNC_REF pins {options.ref}"
        if self.is_elsewhere(options):
            return f"{shows} of {self.repo}, but GITSYNC_REPO is another repository"
        return ""

    def mismatch(self, options: Options) -> str:
        """
        Return why this is what other settings than ours ask for; empty if it is not.
        """
        lack = "" if self.fallback else self.shortfall(options)
        return self.problem(options) or lack

    def shortfall(self, options: Options) -> str:
        """
        Return why this commit is good, but not what the settings ask for now; or "".
        """
        if not options.is_pinned and self.ref not in ("", options.ref):
            return (
                f"{self.commit} was published for the ref {self.ref}, but GITSYNC_REF "
                f"is {options.ref}"
            )
        if not self.is_made_as_asked(options):
            return f"{self.commit} was checked out with other flags"
        if self.fallback:
            return f"the gate refused {self.fallback}, so this is a fallback"
        return ""

    def is_settled(self, options: Options) -> bool:
        """
        Whether the record says that this is what the settings ask for, and that nothing
        newer is refused.
        """
        lacks = self.refused or self.problem(options) or self.shortfall(options)
        return bool(self.ref) and not lacks

    def is_elsewhere(self, options: Options) -> bool:
        """
        Whether it is of another repository; a pinned commit is the same in each.
        """
        return not options.is_pinned and self.repo not in ("", options.repo)

    def is_made_as_asked(self, options: Options) -> bool:
        """
        Whether it was made with today's flags.
        """
        return self.made_by in ("", options.made_by)


def find_published(options: Options) -> Published:
    """
    Return the published commit, without creating, locking or keeping anything open.
    """
    store, name = os.path.split(os.path.realpath(options.link))
    if store == os.path.join(options.root, STORE):
        with suppress(OSError), opened(store) as folder:
            return read_record(name, folder)
    return Published()


def read_record(name: str, store: int) -> Published:
    """
    Return the snapshot that the link shows, with its record in the open store. The
    record is untrusted: whoever can write to the volume can write it.
    """
    found = stat_in(name, store)
    commit = commit_of(name)
    if found is None:  # no link, or it leads to a commit that was removed
        return Published()
    record = read_facts(RECORD, store)
    if record.get("snapshot") != name:  # killed between the record and the link
        return Published(commit, name, published_at=found.st_mtime)
    said = {
        key: str(record.get(key, ""))
        for key in ("made_by", "fallback", "repo", "ref", "refused")
    }
    at = record.get("published_at")
    is_time = isinstance(at, int | float) and 0 <= at < 1 << 36
    return Published(
        commit,
        name,
        published_at=at if is_time else found.st_mtime,
        facts={key: record[key] for key in FACTS if key in record},
        **said,
    )


def write_record(record: Mapping[str, Any], store: int, *, fsync: bool) -> None:
    """
    Record which commit is published from now on.

    Raises:
        OSError: The record could not be written; the previous one stays.
    """
    write_own(RECORD, f"{json_text(record)}\n".encode(), store, mode=0o664, fsync=fsync)


# --- for people


def describe(git: Git, folder: str, commit: str, fence: Fence) -> dict[str, Any]:
    """
    Ask git about the commit that is checked out; empty if it cannot tell.

    Raises:
        CycleAbandoned: The fence was revoked.
    """
    words = [
        "log",
        "-1",
        "--no-show-signature",
        "--date=format-local:%FT%T+00:00",
        "--format=%an%x00%cd%x00%s",
        commit,
    ]
    try:
        said = git.ask(words, folder, fence, TZ="UTC")
        author, moment, subject = said.decode(errors="replace").rstrip("\n").split("\0")
    except (GitFailed, ValueError):
        return {}
    return {"author": _text(author), "committed_at": moment, "subject": _text(subject)}


def unfiltered_of(facts: Mapping[str, Any]) -> str:
    """
    Return the first published file that lacks its filter, as the record says; or "".
    """
    return "".join(_paths(facts, "unfiltered")[:1])


def details_of(facts: Mapping[str, Any]) -> dict[str, object]:
    """
    Return the facts in a record, which is untrusted, as the status page shows them.
    """
    commit = {
        name: _text(facts[name])
        for name in ("author", "committed_at", "subject")
        if facts.get(name)
    }
    return {"commit": commit, "last_change": _text(", ".join(_paths(facts, "changed")))}


def _paths(facts: Mapping[str, Any], name: str) -> list[str]:
    found = facts.get(name)
    return [_text(path) for path in found] if isinstance(found, list) else []


def _text(found: object) -> str:
    return printable(str(found))[:TEXT_CHARACTERS]
