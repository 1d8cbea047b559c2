"""
What should be on disk ↔ what is → plan. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import accumulate, chain
from typing import Any, NamedTuple

from s3_sync.digest import Content
from sidecar_runtime.errors import SidecarError


class State(NamedTuple):
    """
    The files that should be on disk according to the source, at one moment.

    Args:
        revision: The name of the state.
        files: The files, by path relative to the target.
        skipped: The reason why a key cannot become a file, by key.
        kept: Paths whose objects exist but cannot be read by anybody: their files on disk stay.
        facts: Additional facts for the status page.
        is_whole: Whether the files belong together, so that all of them are published or none.
        detail: What its source needs to fetch the files.
        sequence: Of a release: the highest sequence seen, and the key that signed it.
    """

    revision: str
    files: Mapping[str, Content]
    skipped: Mapping[str, str] = {}
    kept: Collection[str] = ()
    facts: Mapping[str, object] = {}
    is_whole: bool = False
    detail: Any = None
    sequence: tuple[int, str] = (0, "")


class Plan(NamedTuple):
    """
    One cycle's work, in order: put, then delete.

    Args:
        put: Paths of files that are new, changed, or damaged on disk.
        delete: Paths of files whose key was deleted.
    """

    put: tuple[str, ...]
    delete: tuple[str, ...]


def make_plan(
    state: State,
    held: Mapping[str, Content],
    *,
    damaged: Collection[str] = (),
    foreign: Iterable[str] = (),
    may_delete: bool,
) -> Plan:
    """
    Compare the files of a state with those that are held.

    A change is a different ETag or size; times are never compared.

    Args:
        damaged: Held paths that were changed or removed on disk: they are not held.
        foreign: Files that s3-sync does not own, to be deleted (``S3_SYNC_DELETE=all``).
        may_delete: False under ``S3_SYNC_DELETE=none``.
    """
    put = tuple(
        path
        for path, file in state.files.items()
        if path in damaged or not is_held(held.get(path), file)
    )
    if not may_delete:
        return Plan(put, ())
    # Usually no key was deleted, and one comparison shows that.
    ours = () if held.keys() <= state.files.keys() else held
    gone = (
        path for path in chain(ours, foreign) if path not in state.files and path not in state.kept
    )
    return Plan(put, tuple(gone))


def is_held(held: Content | None, file: Content) -> bool:
    """
    Whether what is held of a path is the file of a state.
    """
    return held is not None and (held.etag, held.size_bytes) == (file.etag, file.size_bytes)


def without_clashes(state: State, fold: Callable[[str], str] | None, prefix: str = "") -> State:
    """
    Return a state without files that the file system does not distinguish from another one, or
    whose folder it does not distinguish from another name: the first one in the order of names
    stays, the others are skipped.

    Args:
        fold: What the file system takes names for; None if it distinguishes all of them.
        prefix: The prefix of all keys.

    Raises:
        SidecarError: ``release_invalid``: the files belong together.
    """
    if fold is None:
        return state
    first: dict[str, str] = {}
    clashing: dict[str, str] = {}
    for path in sorted(state.files):
        for name in accumulate(path.split("/"), "{}/{}".format):
            if (other := first.setdefault(fold(name), name)) != name:
                clashing[path] = other
                break
    if not clashing:
        return state
    if state.is_whole:
        path, other = next(iter(clashing.items()))
        raise SidecarError(
            "release_invalid",
            f"this volume does not distinguish {path!r} from {other!r}",
            "Rename one of them, or use a volume that distinguishes upper and lower case.",
        )
    files = {path: file for path, file in state.files.items() if path not in clashing}
    skipped = {**state.skipped, **{prefix + path: "name_clash" for path in clashing}}
    return state._replace(files=files, skipped=skipped)
