"""
What holds a change back, and until when; the memory of it, from cycle to cycle:
:class:`Settling` of listings that still change, and :class:`Brake` of mass deletions.

A listing that lacks most files is usually a mistake, so it is held back long enough for
you to notice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Set
from typing import NamedTuple, TypeAlias

from s3_sync.names import Files
from s3_sync.reasons import failure
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.logs import get_logger

HOLD_SECONDS = 900.0
# Up to this many deletions are never held back.
HARMLESS_FILES = 20
NAMED_FILES = 20
# After this many times S3_SYNC_SETTLE, a listing does not wait for a file that changes
# all the time.
RESTLESS = 4
SHORTEST_WAIT_SECONDS = 0.001

log = get_logger("cycle")

# Why nothing may be done, and for how many more seconds; None if it may.
Hold: TypeAlias = tuple[SidecarError, float] | None


class Holds(NamedTuple):
    """
    What may keep a cycle from acting upon a state.

    Args:
        settle: The listing has to stay the same.
        brake: The listing lacks too many files.
        refusal: Why the gate refused this state before, if it is not asked again yet.
        resting: Files that could not be read, and are not due for another try.
    """

    settle: Hold = None
    brake: Hold = None
    refusal: RevisionRefused | None = None
    resting: Set[str] = frozenset()


class Settling:
    """
    Which files of the listings have not stayed the same for long enough. Has no clock
    of its own.

    A listing shows some moment between its request and its response: what is first seen
    in it has lasted since its response, and lasts until the next request at least.

    Args:
        seconds: How long a file must stay the same.

    Attributes:
        restless: The files that have changed again and again, for so long that the
            others no longer wait for them. An upload of many files is none: each of
            them changes once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._files: Files = {}
        # Since when a file has changed, and when last: it has not stayed the same since.
        self._changes: dict[str, tuple[float, float]] = {}
        self.restless: Set[str] = frozenset()

    def meet(self, files: Files, asked_at: float, now: float) -> float:
        """
        Meet a listing; return for how long it has to stay the same, but for the
        restless files; 0 if it may be published.

        Args:
            asked_at, now: When it was requested, and when it arrived (monotonic
                seconds).
        """
        before = self._files
        changes = {
            path: span
            for path, span in self._changes.items()
            if asked_at - span[1] < self._seconds
        }
        for path in before.keys() | files.keys():
            if before.get(path) != files.get(path):
                # The next listing comes when the wait is over: one that finds it changed
                # again has seen no rest. After a longer pause, nobody knows.
                began, at = self._changes.get(path, (now, now))
                if asked_at - at > RESTLESS * self._seconds:
                    began = now
                changes[path] = (began, now)
        self._files = files
        self._changes = changes
        self.restless = {
            path
            for path, (began, _) in changes.items()
            if now - began >= RESTLESS * self._seconds
        }
        last = [at for path, (_, at) in changes.items() if path not in self.restless]
        if not last:
            return 0.0
        # Where the answer came late, the next listing may tell.
        return max(SHORTEST_WAIT_SECONDS, max(last) + self._seconds - now)


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

    @property
    def missing(self) -> int:
        """
        How many published files the last listing lacked.
        """
        return len(self._missing)

    def begin_cycle(self) -> None:
        """
        Begin a cycle, which may end before it has a listing to judge.
        """
        self._before = self._judged_at
        self._judged_at = None

    def judge(self, gone: Collection[str], held: int, *, is_asked_for: bool) -> Hold:
        """
        Judge this cycle's listing: return why it is held back, and for how long at
        least.

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
        was_held = self._is_held
        self._is_held = rest > HARMLESS_FILES and rest * 100 > held * self._percent
        if not self._is_held:
            return None
        if not was_held:
            log.warning(
                "deletion_held",
                files_to_delete=len(gone),
                managed_files=held,
                paths=sorted(gone)[:NAMED_FILES],
            )
        said = (
            f"{len(gone)} of {held} files are missing from the source; unless they come back "
            f"within {HOLD_SECONDS / 60:g} minutes, they are deleted here, too"
        )
        return failure("deletion_held", said), HOLD_SECONDS - max(ages)
