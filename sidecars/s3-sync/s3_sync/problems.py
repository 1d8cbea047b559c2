"""
Files that the source has and the volume lacks: each is named once and retried with backoff, without
a limit. Keys that cannot become files: counted, and each named once.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from s3_sync.digest import Content
from s3_sync.metrics import SKIP_REASONS, Status
from s3_sync.reasons import REASONS, Reason
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Names
from sidecar_runtime.logs import get_logger

# A transient failure is over after this many tries; later tries become rarer and rarer.
EAGER_TRIES = 3
LONGEST_REST_SECONDS = 300.0
NAMED = 50

log = get_logger("cycle")


@dataclass(frozen=True, slots=True)
class Unread:
    """
    A file that could not be read: the version that was tried, why, how often, and when it is due
    again (monotonic seconds).
    """

    etag: str
    error: SidecarError
    tries: int = 1
    due_at: float = 0.0


class Problems:
    """
    The unread files and the skipped keys of one source.

    Args:
        interval_seconds: The time between cycles; the first retries wait about as long.
    """

    def __init__(
        self,
        status: Status,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._unread: dict[str, Unread] = {}
        # What the log has named already.
        self._named: set[str] = set()
        self._named_keys: set[str] = set()
        self._reasons: set[str] = set()

    @property
    def errors(self) -> Mapping[str, SidecarError]:
        """
        Why each unread file could not be read, by path.
        """
        return {path: unread.error for path, unread in self._unread.items()}

    @property
    def resting(self) -> set[str]:
        """
        The unread files that are not due for a retry.
        """
        now = self._clock()
        return {path for path, unread in self._unread.items() if unread.due_at > now}

    def meet(self, files: Mapping[str, Content], *, is_asked_for: bool) -> None:
        """
        Forget files that the source no longer has. Those with a new version are due at once, and
        all of them if an operator triggered the cycle.
        """
        for path, unread in list(self._unread.items()):
            file = files.get(path)
            if file is None:
                del self._unread[path]
            elif is_asked_for or file.etag != unread.etag:
                self._unread[path] = Unread(unread.etag, unread.error, unread.tries)
        self._named &= self._unread.keys()

    def note(self, tried: Mapping[str, Content], failed: Mapping[str, SidecarError]) -> None:
        """
        Record which of the tried files failed.

        A file that became readable makes all others due: their problem may be over as well.
        """
        read = [path for path in tried if path in self._unread and path not in failed]
        for path in read:
            del self._unread[path]
            self._named.discard(path)
        for path in sorted(failed.keys() & tried.keys()):
            self._fail(path, tried[path].etag, failed[path])
        if read:
            self.retry_all()

    def keep(self, paths: Collection[str]) -> None:
        """
        Forget all other files: they are on the volume.
        """
        self._unread = {path: one for path, one in self._unread.items() if path in paths}

    def retry_all(self) -> None:
        """
        Make all files due: a file that could not be written may fit on another volume.
        """
        for path, unread in self._unread.items():
            self._unread[path] = Unread(unread.etag, unread.error, unread.tries)

    def show(self, skipped: Mapping[str, str], blocked: Iterable[str]) -> None:
        """
        Count unread files and skipped keys by reason, name new ones, and show the first of them.

        Args:
            skipped: The reason by key, from the source.
            blocked: Paths that a file of another owner blocks.
        """
        counts = Counter(unread.error.reason for unread in self._unread.values())
        for reason in self._reasons | counts.keys():
            self._status.metrics.unread(reason).set(counts[reason])
        self._reasons |= counts.keys()
        every = {**skipped, **dict.fromkeys(blocked, "blocked")}
        by_reason = Counter(every.values())
        for reason in SKIP_REASONS:
            self._status.metrics.skipped(reason).set(by_reason[reason])
        first = dict(itertools.islice(every.items(), NAMED))
        self._named_keys &= every.keys()
        for key in first.keys() - self._named_keys:
            log.warning("key_skipped", key=key, reason=first[key])
        self._named_keys |= first.keys()
        unread = itertools.islice(self._unread.items(), NAMED)
        self._status.show(
            unread=Names({path: one.error.reason for path, one in unread}),
            keys_skipped=Names(first),
        )

    def _fail(self, path: str, etag: str, error: SidecarError) -> None:
        before = self._unread.get(path)
        tries = before.tries + 1 if before is not None and before.etag == etag else 1
        rest = REASONS.get(error.reason, Reason()).rest_seconds
        if tries > EAGER_TRIES:
            doublings = min(tries - EAGER_TRIES, 32)  # 2.0**1024 would overflow
            longest = min(LONGEST_REST_SECONDS, self._interval_seconds * 2.0**doublings)
            rest = max(rest, longest * random.uniform(0.5, 1.0))
        self._unread[path] = Unread(etag, error, tries, self._clock() + rest)
        if path not in self._named and len(self._named) < NAMED:
            self._named.add(path)
            log.warning("object_unread", path=path, reason=error.reason, error=error.message)


def explain(errors: Mapping[str, SidecarError], files: Collection[str]) -> SidecarError:
    """
    Return one error for all missing files: the most frequent one, with the number of files.

    The text is the same for the same files, in whatever order they failed.
    """
    in_order = [errors[path] for path in sorted(errors)]
    reason, _ = Counter(error.reason for error in in_order).most_common(1)[0]
    first = next(error for error in in_order if error.reason == reason)
    what = "do not fit" if reason == "target_full" else "cannot be read"
    message = f"{len(errors)} of {len(files)} files {what}: {first.message}"
    return SidecarError(first.reason, message, first.advice)
