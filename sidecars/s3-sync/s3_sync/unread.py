"""
Files that the source has and the volume lacks: each is named once and retried with
backoff, without a limit. Keys that cannot become files: counted, and each named once.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from s3_sync.metrics import SKIP_REASONS
from s3_sync.names import Files, not_held
from s3_sync.readiness import Status
from s3_sync.reasons import REST_SECONDS, Failures, ObjectError
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Names
from sidecar_runtime.logs import get_logger

# A transient failure is over after this many tries; later tries become rarer and rarer.
EAGER_TRIES = 3
LONGEST_REST_SECONDS = 300.0
LASTING_CYCLES = 3
NAMED = 50
RESTLESS_ADVICE = (
    "It is published once it has stayed the same for S3_SYNC_SETTLE. If it never does, find out "
    "what writes it all the time, or exclude it with S3_SYNC_EXCLUDE."
)

log = get_logger("cycle")


class Unread(NamedTuple):
    """
    A file that could not be read: the version that was tried, why, how often, and when
    it is due again (monotonic seconds).
    """

    etag: str
    error: SidecarError
    tries: int = 1
    due_at: float = 0.0


class UnreadFiles:
    """
    The unread files and the skipped keys of one source.

    Args:
        interval_seconds: The time between cycles; the first retries wait about as long.
    """

    def __init__(self, status: Status, interval_seconds: float) -> None:
        self._status = status
        self._interval_seconds = interval_seconds
        self._unread: dict[str, Unread] = {}
        # What the log has named already.
        self._named: set[str] = set()
        self._reasons: set[str] = set()

    @property
    def errors(self) -> Failures:
        """
        Why each unread file could not be read, by path.
        """
        return {path: unread.error for path, unread in self._unread.items()}

    @property
    def resting(self) -> set[str]:
        """
        The unread files that are not due for a retry.
        """
        now = time.monotonic()
        return {path for path, unread in self._unread.items() if unread.due_at > now}

    def note(
        self,
        files: Files,
        held: Files,
        failed: Failures,
        *,
        is_asked_for: bool = False,
    ) -> None:
        """
        Note files that failed, and forget those that are held now, or that the source
        no longer has. One of these makes all others due, because their problem may be
        over as well, and so does an operator who triggered the cycle; a new version is
        due by itself.
        """
        before = self._unread
        there = [path for path in before if path in files]
        left = not_held(there, files, held)
        is_due = is_asked_for or len(left) < len(before)
        self._unread = {path: before[path] for path in left}
        for path, unread in self._unread.items():
            if is_due or files[path].etag != unread.etag:
                self._unread[path] = unread._replace(due_at=0.0)
        for path, error in failed.items():
            # Where the time was up before its turn, its last error is repeated.
            if path not in before or error is not before[path].error:
                self._fail(path, files[path].etag, error)

    def hold_back(
        self,
        paths: Collection[str],
        files: Files,
        held: Files,
        *,
        rest_seconds: float,
    ) -> None:
        """
        Note files that change all the time as unread: none of their versions is asked
        for.

        Args:
            rest_seconds: How long a version must last before it is.
        """
        for path in not_held(paths & files.keys(), files, held):
            error = ObjectError(
                "object_changing",
                f"{path!r} has changed again and again, for longer than the others wait",
                RESTLESS_ADVICE,
            )
            self._unread[path] = Unread(
                files[path].etag, error, due_at=time.monotonic() + rest_seconds
            )

    def show(self, skipped: Mapping[str, str]) -> None:
        """
        Count unread files and skipped keys by reason, name new ones, and show the first
        of them.

        Args:
            skipped: The reason by key, from the source.
        """
        errors = self.errors
        if not (errors or skipped or self._named):
            return  # nor was there anything before
        counts = Counter(error.reason for error in errors.values())
        self._reasons |= counts.keys()
        for reason in self._reasons:  # also those that are over: 0
            self._status.metrics.unread(reason).set(counts[reason])
        counts = Counter(skipped.values())
        for reason in SKIP_REASONS:
            self._status.metrics.skipped(reason).set(counts[reason])
        first = dict(itertools.islice(skipped.items(), NAMED))
        unread = dict(itertools.islice(errors.items(), NAMED))
        for key in first.keys() - self._named:
            log.warning("key_skipped", key=key, reason=first[key])
        for path in sorted(unread.keys() - self._named):
            error = unread[path]
            log.warning(
                "object_unread", path=path, reason=error.reason, error=error.message
            )
        self._named = first.keys() | unread.keys()
        self._status.show(
            unread=Names({path: error.reason for path, error in unread.items()}),
            keys_skipped=Names(first),
        )

    def _fail(self, path: str, etag: str, error: SidecarError) -> None:
        before = self._unread.get(path)
        tries = before.tries + 1 if before is not None and before.etag == etag else 1
        rest = 0.0
        if tries > 1:  # the network may have been slow once
            rest = REST_SECONDS.get(error.reason, 0.0)
        if tries > EAGER_TRIES:
            doublings = min(tries - EAGER_TRIES, 32)  # 2.0**1024 would overflow
            longest = min(LONGEST_REST_SECONDS, self._interval_seconds * 2.0**doublings)
            rest = max(rest, longest * random.uniform(0.5, 1.0))
        self._unread[path] = Unread(etag, error, tries, time.monotonic() + rest)


class Shortage:
    """
    What the last cycles lacked.

    Attributes:
        cycles: How many cycles in a row lacked the same files; after LASTING_CYCLES, a
            one-shot accepts a partial state.
        is_new: Whether the last cycle lacked what the one before had, but never twice
            in a row.
    """

    def __init__(self) -> None:
        self._missing: set[str] = set()
        self._lasting: set[str] = set()
        self.cycles = 0
        self.is_new = False

    def meet(self, missing: Failures) -> None:
        """
        Note what a cycle lacks.
        """
        # Of those that just keep changing, each cycle lacks others.
        lasting = {
            p for p, error in missing.items() if error.reason != "object_changing"
        }
        is_same = bool(missing) and lasting == self._lasting
        self.cycles = self.cycles + 1 if is_same else int(bool(missing))
        self._lasting = lasting
        self.is_new = bool(missing.keys() - self._missing) and not self.is_new
        self._missing = set(missing)


def explain(errors: Failures, files: Collection[str]) -> SidecarError:
    """
    Return one error for all missing files: that of the first one, with the number of
    files.
    """
    first = errors[min(errors)]
    return SidecarError(
        first.reason,
        f"{len(errors)} of {len(files)} files are missing or out of date: {first.message}",
        first.advice,
    )
