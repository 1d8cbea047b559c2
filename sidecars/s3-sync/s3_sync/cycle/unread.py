"""
Files that cannot be read: each is logged once and retried with backoff, without a limit.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from s3_sync.digest import Content
from s3_sync.metrics import SyncMetrics
from s3_sync.status import Status
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger
from sidecar_runtime.sidecar import Names

# A transient failure is over after this many tries; later tries become rarer and rarer.
EAGER_TRIES = 3
LONGEST_REST_SECONDS = 300.0
NAMED_FILES = 50

log = get_logger("cycle")


@dataclass(slots=True)
class _Unread:
    etag: str
    error: SidecarError
    tries: int = 1
    due_at: float = 0.0


class Unread:
    """
    The files of the source that are missing or out of date because they could not be read.

    Args:
        interval_seconds: The time between cycles; the first retries wait about as long.
    """

    def __init__(
        self,
        metrics: SyncMetrics,
        status: Status,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._status = status
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._files: dict[str, _Unread] = {}
        self._named: set[str] = set()
        self._shown: set[str] = set()

    @property
    def errors(self) -> Mapping[str, SidecarError]:
        """
        The errors, by path.
        """
        return {path: unread.error for path, unread in self._files.items()}

    @property
    def are_due(self) -> bool:
        """
        Whether a file is due for a retry.
        """
        now = self._clock()
        return any(unread.due_at <= now for unread in self._files.values())

    def show(self) -> None:
        """
        Show the number of files by reason, and name the first of them.
        """
        counts = Counter(unread.error.reason for unread in self._files.values())
        for reason in self._shown | counts.keys():
            self._metrics.unread(reason).set(counts[reason])
        self._shown |= counts.keys()
        first = itertools.islice(self._files.items(), NAMED_FILES)
        self._status.show(
            unread=Names({path: unread.error.reason for path, unread in first}),
        )

    def look(self, wanted: Mapping[str, Content], *, is_asked_for: bool) -> None:
        """
        Forget files that the source no longer has.

        Files with a new version are due at once, and all files if an operator triggered the cycle.
        """
        for path, unread in list(self._files.items()):
            entry = wanted.get(path)
            if entry is None:
                del self._files[path]
            elif is_asked_for or entry.etag != unread.etag:
                unread.due_at = 0.0
        self._named &= self._files.keys()

    def start_over(self) -> None:
        """
        Make all files due, and count none: a file that could not be written may fit on the new
        volume, and a standby lacks none.
        """
        for unread in self._files.values():
            unread.due_at = 0.0
        for reason in self._shown:
            self._metrics.unread(reason).set(0)

    def keep(self, paths: Collection[str]) -> None:
        """
        Forget all other files: they were restored from the published files.
        """
        for path in self._files.keys() - paths:
            del self._files[path]

    def resting(self) -> set[str]:
        """
        Return the paths that are not retried in this cycle.
        """
        now = self._clock()
        return {path for path, unread in self._files.items() if unread.due_at > now}

    def note(
        self,
        tried: Mapping[str, Content],
        failed: Mapping[str, SidecarError],
    ) -> None:
        """
        Record which of the tried files failed in a cycle.

        A file that became readable makes all others due: their problem may be over as well.
        """
        read = [path for path in tried if path in self._files and path not in failed]
        for path in read:
            del self._files[path]
            self._named.discard(path)
        for path in sorted(failed):
            if (entry := tried.get(path)) is not None:
                self._fail(path, entry, failed[path])
        if read:
            for unread in self._files.values():
                unread.due_at = 0.0

    def _fail(self, path: str, entry: Content, error: SidecarError) -> None:
        before = self._files.get(path)
        is_same = before is not None and before.etag == entry.etag
        tries = before.tries + 1 if before is not None and is_same else 1
        rest = 0.0
        if tries > EAGER_TRIES:
            doublings = min(tries - EAGER_TRIES, 32)  # 2.0**1024 would overflow
            rest = min(LONGEST_REST_SECONDS, self._interval_seconds * 2.0**doublings)
            rest *= random.uniform(0.5, 1.0)
        self._files[path] = _Unread(entry.etag, error, tries, self._clock() + rest)
        if path not in self._named and len(self._named) < NAMED_FILES:
            self._named.add(path)
            log.warning("object_unread", path=path, reason=error.reason, error=error.message)


def explain(errors: Mapping[str, SidecarError], wanted: Collection[str]) -> SidecarError:
    """
    Return one error for all missing files: the most frequent one, with the number of files.

    The text is the same for the same files, in whatever order they failed.
    """
    in_order = [errors[path] for path in sorted(errors)]
    reason, _ = Counter(error.reason for error in in_order).most_common(1)[0]
    first = next(error for error in in_order if error.reason == reason)
    what = "do not fit" if reason == "target_full" else "cannot be read"
    message = f"{len(errors)} of {len(wanted)} files {what}: {first.message}"
    return SidecarError(first.reason, message, first.advice)
