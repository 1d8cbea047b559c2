"""
The commands that list, compare, keep and remove releases.

Prune removes the manifest first, so that no release is ever without its bundle.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from s3_sync.names import short
from s3_sync.publisher.bucket import Boto3Store
from s3_sync.publisher.catalog import (
    DAY,
    DIGITS,
    damaged,
    find_manifest,
    list_releases,
    read_current,
    read_existing,
    read_manifest,
    read_pins,
    resolve,
)
from s3_sync.release.format import (
    BUNDLE_FOLDER,
    Manifest,
    bundle_key,
    is_of_release,
    manifest_key,
    pin_key,
    time_text,
)
from sidecar_runtime.errors import SidecarError, printable

HEAD = ("REVISION", "CREATED", "BY", "COMMIT", "FILES", "SIZE", "STATE", "MESSAGE")


# What a command tells programs.
Facts = dict[str, Any]


class Report(NamedTuple):
    """
    The answer of one command: lines for people, facts for programs.

    Args:
        failure: What ended the command before it was done, if anything did.
    """

    lines: list[str]
    facts: Facts
    failure: SidecarError | None = None


def write(stream: Any, *lines: str) -> None:
    """
    Write lines to an output; to a full disk, nothing, also at the end of the process:
    the exit code says what was done.
    """
    try:
        stream.reconfigure(errors="backslashreplace")
        for line in lines:
            stream.write(f"{printable(line)}\n")
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@lru_cache(maxsize=1)  # what it shows already is not shown again
def show(text: str) -> None:
    """
    Show what is waited for, on standard error: one line for each change; on a terminal,
    each replaces the one before.
    """
    if sys.stderr.isatty():
        if show.cache_info().misses > 1:
            sys.stderr.write("\x1b[A\x1b[K")  # up, and erase it
        text = text[:79]  # Of a longer line, only the last row would be erased.
    write(sys.stderr, text)


def size_text(size_bytes: int) -> str:
    """
    Return a size in a readable unit.
    """
    if size_bytes < 1024:
        return f"{size_bytes} B"
    units = (size_bytes.bit_length() - 1) // 10
    return f"{size_bytes / 1024**units:,.1f} {' KMGT'[units]}iB"


# --- releases


def releases(store: Boto3Store, limit: int) -> Report:
    """
    List the existing releases, the current one first; a failure if none is current, or
    the pointer is refused.

    Args:
        limit: How many at most; 0: all.
    """
    current = read_current(store, forces=True)
    names = current.names
    states = [*names.items(), *(("pinned", pin) for pin in read_pins(store))]
    found = list_releases(store)
    shown = sorted(found, key=lambda name: name != names.get("current"))
    rows = [_facts(store, name, found[name], states) for name in shown[: limit or None]]
    older = len(found) - len(rows)
    facts = {
        "url": store.url,
        "current": names.get("current"),
        "history": [turn.facts() for turn in current.turns],
        "releases": rows,
        "older": older,
        "signed_by": current.signed_by,
    }
    table = [HEAD, *map(_row, rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    if older:
        lines.append(f"and {older} older releases; --limit 0 lists all")
    return Report(lines, facts, current.refusal)


def _facts(
    store: Boto3Store,
    name: str,
    used_at: datetime,
    states: Sequence[tuple[str, str]],
) -> Facts:
    """
    Return what is known of a release, and its state, such as ``current`` or ``pinned``.

    Args:
        states: Each state, and the revision that has it.
    """
    manifest = find_manifest(store, name)
    facts: Facts = {
        "revision": name,
        "used_at": time_text(used_at),
        "state": [state for state, revision in states if revision == name],
    }
    if manifest is None:
        facts["state"].append("damaged")
    else:
        facts |= {
            "created_at": manifest.created_at,
            "origin": manifest.origin,
            "files": len(manifest.files),
            "size_bytes": manifest.size_bytes,
        }
    return facts


def _row(facts: Facts) -> Sequence[Any]:
    origin = facts.get("origin", {})
    return (
        short(facts["revision"]),
        facts.get("created_at", facts["used_at"]),
        origin.get("by", ""),
        origin.get("commit", "")[:12],
        str(facts.get("files", "")),
        size_text(facts["size_bytes"]) if "size_bytes" in facts else "",
        ", ".join(facts["state"]),
        origin.get("message", "").partition("\n")[0][:48],
    )


# --- diff


class Changes(NamedTuple):
    """
    The files that differ between two releases: sorted, by kind of change.
    """

    added: Sequence[str]
    changed: Sequence[str]
    removed: Sequence[str]

    def lines(self) -> list[str]:
        """
        Return one line per name.
        """
        marks = zip("+~-", self, strict=True)
        return [f"  {mark} {name}" for mark, names in marks for name in names]

    def __str__(self) -> str:
        return ", ".join(
            f"{len(names)} {kind}" for kind, names in self._asdict().items()
        )


def compare(before: Manifest | None, after: Manifest) -> Changes:
    """
    Compare the files of two releases; every file is new if there is no release before.
    """
    old = before.files if before else {}
    new = after.files
    changed = [path for path in new if path in old and old[path].etag != new[path].etag]
    return Changes(
        sorted(new.keys() - old.keys()), changed, sorted(old.keys() - new.keys())
    )


def diff(before: Manifest, after: Manifest) -> Report:
    """
    List the files that differ between two releases.
    """
    changes = compare(before, after)
    return Report(
        [
            f"{short(before.revision)} → {short(after.revision)}: {changes}",
            *changes.lines(),
        ],
        {
            "before": before.revision,
            "after": after.revision,
            "changes": changes._asdict(),
        },
    )


# --- prune and pin


def prune(
    store: Boto3Store, kept: Iterable[str], count: int, seconds: float, *, is_dry: bool
) -> Report:
    """
    Remove old releases, and bundles that no release names; nothing that was used within
    a day, and nothing that the format does not name.

    If it is killed, every release that has a manifest is whole; the next prune removes
    the rest. If it fails, the report says what it has removed.

    Args:
        kept: Beginnings of revisions to keep whatever their age, besides those in use
            and pinned ones.
        count: How many of the most recently used to keep.
        seconds: Keep those that were current within this time.

    Raises:
        ReleaseError: The pointer is missing or refused, so this may be no prefix of
            releases; or a listing lacks the current release. Nothing is removed.
    """
    spared = (*kept, *_in_use(store))
    bundles = list(store.list(BUNDLE_FOLDER))
    entries = list_releases(store)
    youngest = store.now() - max(DAY, timedelta(seconds=seconds))
    gone = []
    freed = []
    failure = None
    try:
        for name, used_at in [*entries.items()][count:]:
            is_spared = used_at >= youngest or name.startswith(spared)
            # perhaps by a pointer meanwhile
            if is_spared or name in _in_use(store):
                continue
            if _remove(store, manifest_key(name), is_dry):
                gone.append(name)
        named = _named_bundles(store, gone)
        for bundle in bundles:
            if bundle.key in named or not is_of_release(bundle.key):
                continue
            if _remove(store, bundle.key, is_dry):
                freed.append(bundle.size_bytes)
        if freed:
            _require_bundle(store)
    except SidecarError as error:
        failure = error
    left = len(entries) - len(gone)
    freed_bytes = sum(freed)
    facts = {
        "result": "planned" if is_dry else "pruned",
        "url": store.url,
        "removed": gone,
        "kept": left,
        "bundles": len(freed),
        "freed_bytes": freed_bytes,
    }
    verb = "Would remove" if is_dry else "Removed"
    lines = [
        f"{verb} {short(name)}, last used {time_text(entries[name])}" for name in gone
    ]
    lines.append(
        f"{verb} from {store.url}: releases {len(gone)}, bundles {len(freed)} "
        f"({size_text(freed_bytes)}); releases kept: {left}"
    )
    return Report(lines, facts, failure)


def _named_bundles(store: Boto3Store, gone: Collection[str]) -> set[str]:
    """
    Return the bundles of the releases that stay, also of those that are new.

    Args:
        gone: Releases that were removed, and may still be listed.

    Raises:
        ReleaseError: The listing lacks the current release, and perhaps others; or a
            manifest is unknown, and with it its bundle.
    """
    # Before the listing, which then has it, too, if it is published meanwhile.
    current = read_existing(store).names["current"]
    listed = list_releases(store).keys()
    if current not in listed:
        raise damaged(store, current, "releases/ does not list it")
    named = set()
    # The current one may have been removed, and published again.
    for name in (listed - gone) | {current}:
        manifest = find_manifest(store, name)
        if manifest is None:
            raise damaged(store, name, "its manifest is missing or invalid")
        named.add(bundle_key(manifest.bundle_sha256))
    return named


def _require_bundle(store: Boto3Store) -> None:
    """
    Look whether the current release has its bundle: a deletion that waits for as long
    as a publish takes removes what that publish has written.

    Raises:
        ReleaseError: It has none.
    """
    current = read_existing(store).names["current"]
    manifest, _ = read_manifest(store, current)
    key = bundle_key(manifest.bundle_sha256)
    if store.look(key) is None:
        raise damaged(store, current, f"{key} does not exist")


def _in_use(store: Boto3Store) -> set[str]:
    """
    Return the current release, the target of a rollback, and pinned ones.

    Raises:
        ReleaseError: No release is current, or the pointer is refused.
    """
    return {*read_existing(store).names.values(), *read_pins(store)}


def _remove(store: Boto3Store, key: str, is_dry: bool) -> bool:
    """
    Remove an object, unless it is gone or was written within the last day.
    """
    found = store.look(key)
    if found is None or store.now() - found.modified_at < DAY:
        return False
    if not is_dry:
        store.delete(key)
    return True


def read_names(path: str) -> set[str]:
    """
    Return the revisions in the file of `--keep-from`, or their beginnings, one per
    line; ``-`` is standard input. The commits of older runs match no release.

    Raises:
        OSError: It cannot be read.
        ValueError: It is empty, or contains something else: more likely, the program
            that wrote it has failed than that no release is needed.
    """
    found = set()
    # Python has no sys.stdin if the caller has closed the descriptor.
    lines = Path("/dev/stdin" if path == "-" else path).read_text().splitlines()
    for name in map(str.strip, lines):
        digits = DIGITS.fullmatch(name)
        if digits:
            found.add(f"sha256-{digits[1]}")
        elif name:
            raise ValueError(
                f"has a line with neither a revision nor a commit: {name!r:.99}"
            )
    if not found:
        raise ValueError("is empty; omit it to keep none")
    return found


def pin(store: Boto3Store, name: str, command: str) -> Report:
    """
    Protect a release from pruning, or end the protection.

    Args:
        command: ``pin`` or ``unpin``.
    """
    read_existing(store)
    revision = resolve(store, name)
    key = pin_key(revision)
    done = f"{command}ned"
    if command == "pin":
        read_manifest(store, revision)
        store.put(key, b"")
        # a prune may have removed it meanwhile
        read_manifest(store, revision)
    else:
        store.delete(key)
    return Report(
        [f"{done.capitalize()} {revision} in {store.url}"],
        {"result": done, "url": store.url, "revision": revision},
    )
