"""
What should be on disk ↔ what is → plan; and the brake on mass deletion. Pure.

A listing that lacks most files is usually a mistake, so it is held back long enough for
you to notice. Whether files are deleted at all (``S3_SYNC_DELETE``) is decided by the
callers (`sync.py` says where): a state names the files that are kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from itertools import chain
from typing import Any, NamedTuple

from s3_sync.names import Content
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger

HOLD_SECONDS = 900.0
# Up to this many deletions are never held back.
HARMLESS_FILES = 20
NAMED_FILES = 20

log = get_logger("cycle")


class State(NamedTuple):
    """
    The files that should be on disk according to the source, at one moment.

    Args:
        revision: The name of the state.
        files: The files, by path relative to the target.
        skipped: The reason why a key cannot become a file, by key.
        kept: Paths whose files on disk stay: their objects exist but cannot be read by
            anybody, or nothing is ever deleted (``S3_SYNC_DELETE=none``).
        facts: Additional facts for the status page.
        is_whole: Whether the files belong together, so that all of them are published
            or none.
        detail: What its source needs to fetch the files.
        sequence: Of a release: the highest sequence seen, and the key that signed it.
    """

    revision: str
    files: Mapping[str, Content]
    skipped: Mapping[str, str] = {}
    kept: Set[str] = frozenset()
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
    state: State, held: Mapping[str, Content], *, foreign: Iterable[str] = ()
) -> Plan:
    """
    Compare the files of a state with those that are held.

    A change is a different ETag or size; times are never compared. What was altered on
    disk is held without an ETag.

    Args:
        foreign: Files that s3-sync does not own, to be deleted
            (``S3_SYNC_DELETE=all``).
    """
    put = not_held(state.files, state.files, held)
    there = chain(held, foreign)
    gone = [
        path for path in there if path not in state.files and path not in state.kept
    ]
    return Plan(tuple(put), tuple(gone))


def not_held(
    paths: Iterable[str], files: Mapping[str, Content], held: Mapping[str, Content]
) -> list[str]:
    """
    Return the paths whose file is not held.
    """
    return [path for path in paths if not is_held(held.get(path), files[path])]


def is_held(held: Content | None, file: Content) -> bool:
    """
    Whether what is held of a path is the file of a state.
    """
    return (
        held is not None
        and held.etag == file.etag
        and held.size_bytes == file.size_bytes
    )


def without_clashes(
    state: State, fold: Callable[[str], str] | None, prefix: str = ""
) -> State:
    """
    Return a state without files that the file system does not distinguish from another
    one: the first one in the order of names stays, the others are skipped.

    Args:
        fold: What the file system takes names for; None if it distinguishes all of
            them.
        prefix: The prefix of all keys.

    Raises:
        SidecarError: ``release_invalid``: the files belong together.
    """
    if fold is None:
        return state
    first = {fold(path): path for path in sorted(state.files, reverse=True)}
    clashing = state.files.keys() - first.values()
    if clashing and state.is_whole:
        path = min(clashing)
        raise SidecarError(
            "release_invalid",
            f"this volume does not distinguish {path!r} from {first[fold(path)]!r}",
            "Rename one of them, or use a volume that distinguishes upper and lower case.",
        )
    files = {path: file for path, file in state.files.items() if path not in clashing}
    skipped = {**state.skipped, **{prefix + path: "name_clash" for path in clashing}}
    kept = {path for path in state.kept if fold(path) not in first}
    return state._replace(files=files, skipped=skipped, kept=kept)


class Brake:
    """
    Holds listings back that would delete too many files, until listings have lacked the
    same files for long enough.

    Only the time from one listing to the next counts. While cycles fail, or listings
    settle, the operator reads of that, and the files may have come back meanwhile.
    """

    def __init__(
        self, percent: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._percent = percent
        self._clock = clock
        # For how many seconds listings have lacked which published files.
        self._missing: dict[str, float] = {}
        # When the previous cycle, and this one, judged a listing; None if it did not.
        self._before: float | None = None
        self._judged_at: float | None = None
        self._is_held = False
        self.left_seconds = 0.0
        """How long a hold lasts at least, if nothing comes back."""

    def begin_cycle(self) -> None:
        """
        Begin a cycle, which may end before it has a listing to judge.
        """
        self._before = self._judged_at
        self._judged_at = None

    def judge(
        self, gone: Collection[str], held: int, *, is_asked_for: bool
    ) -> SidecarError | None:
        """
        Judge this cycle's listing: return why it is held back; None if it may be
        applied.

        Args:
            gone: The published files that it lacks.
            held: The number of published files.
            is_asked_for: Whether an operator triggered this cycle, which approves the
                deletion of files that an earlier listing lacked already.
        """
        now = self._judged_at = self._clock()
        seconds = now - self._before if self._before is not None else 0.0
        if is_asked_for:
            seconds = math.inf
        before = self._missing
        self._missing = {
            path: before[path] + seconds if path in before else 0.0 for path in gone
        }
        ages = [age for age in self._missing.values() if age < HOLD_SECONDS]
        rest = len(ages)
        self.left_seconds = HOLD_SECONDS - max(ages, default=0.0)
        was_held = self._is_held
        self._is_held = rest > HARMLESS_FILES and rest * 100 > held * self._percent
        if not self._is_held:
            return None
        if not was_held:
            named = sorted(gone)[:NAMED_FILES]
            log.warning(
                "deletion_held",
                files_to_delete=len(gone),
                managed_files=held,
                paths=named,
            )
        return SidecarError(
            "deletion_held",
            f"{len(gone)} of {held} files are missing from the source; this listing is held back "
            f"for {HOLD_SECONDS / 60:g} minutes",
            "If this is a mistake, undo it at the source before a pod is replaced: a new volume "
            "holds nothing back. If it is intended, wait, or send SIGHUP.",
        )
