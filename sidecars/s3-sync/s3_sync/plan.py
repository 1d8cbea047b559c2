"""
What a cycle has to do, or why nothing yet: :func:`decide`. What it has a memory for:
:class:`Settling`, and :class:`Brake`, which holds mass deletions back.

A listing that lacks most files is usually a mistake, so it is held back long enough for
you to notice. Whether files are deleted at all (``S3_SYNC_DELETE``) is decided by
:func:`kept_paths`. What is decided here is done elsewhere: `build.py` brings files,
`listing.py` confirms deletions, `layout/` deletes and shows; `unread.py` says what
rests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

from s3_sync.names import Content, Files, folders_of, not_held
from s3_sync.published import Published
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


class State(NamedTuple):
    """
    The files that should be on disk according to the source, at one moment.

    Args:
        revision: The name of the state.
        files: The files, by path relative to the target.
        skipped: The reason why a key cannot become a file, by key.
        kept: Paths whose files on disk stay: their objects exist but cannot be read by
            anybody, or have none any more (``S3_SYNC_DELETE=none``).
        facts: Additional facts for the status page.
        is_whole: Whether the files belong together, so that all of them are published
            or none.
        detail: What its source needs to fetch the files.
        sequences: Of a release: the highest sequence seen of each key.
    """

    revision: str
    files: Files
    skipped: Mapping[str, str] = {}
    kept: Set[str] = frozenset()
    facts: Mapping[str, object] = {}
    is_whole: bool = False
    detail: Any = None
    sequences: Mapping[str, int] = {}


class There(NamedTuple):
    """
    What is on the volume, after repairs.

    Args:
        files: What s3-sync put there, by path.
        intact: Those that are neither missing nor altered.
        published: What the record says of them; None if they are not those of the
            settings.
        is_ready: Whether consumers have what they need.
    """

    files: Mapping[str, Content] = {}
    intact: Mapping[str, Content] = {}
    published: Published | None = None
    is_ready: bool = False


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


class Work(NamedTuple):
    """
    What has to be done, in order: put, then delete.

    Args:
        put: Paths of files that are new, changed, or damaged on disk.
        delete: Paths of files whose key was deleted.
    """

    put: Sequence[str] = ()
    delete: Sequence[str] = ()


class Wait(NamedTuple):
    """
    That nothing may be done yet.

    Args:
        until: The Unix time when this ends by itself; None if it does not.
        is_enough: Whether a one-shot may end all the same.
    """

    until: float | None
    why: SidecarError
    is_enough: bool = False


class Done(NamedTuple):
    """
    That what is published is the state, as far as it can be read.

    Args:
        missing: The files that it lacks, none of which is due for another try.
    """

    missing: Sequence[str] = ()


def decide(state: State, there: There, holds: Holds, now: float) -> Work | Wait | Done:
    """
    Return what this cycle has to do. Pure.

    Args:
        now: Unix time.
    """
    # An upload is going on; also for a pod that has nothing, because half an upload is no
    # better than a wait.
    if holds.settle is not None:
        why, seconds = holds.settle
        return Wait(now + seconds, why)
    # Somebody may have deleted the wrong folder, and undo it. A one-shot need not wait
    # for that: all files of before are there.
    if holds.brake is not None:
        why, seconds = holds.brake
        return Wait(now + seconds, why, is_enough=True)
    # A refusal stops a change, never a repair: without a ready state, the gate's
    # fallback is looked for.
    published = there.published
    if holds.refusal is not None and there.is_ready:
        return Wait(None, holds.refusal)
    work = difference(state, there)
    # Another revision is work even without a difference: the record has to name it.
    if published is None or not there.is_ready or published.aim != state.revision:
        return work
    # As many are missing as the record says, and nothing stands in for a refused state.
    is_same = published.missing == len(work.put) and not published.fallback
    # What could not be read rests until its next try, which takes a build.
    is_due = any(path not in holds.resting for path in work.put)
    if work.delete or is_due or not is_same:
        return work
    return Done(work.put)


def difference(state: State, there: There) -> Work:
    """
    Compare the files of a state with those that are held.

    A change is a different ETag or size; times are never compared.
    """
    files = state.files
    put = not_held(files, files, there.intact)
    gone = [
        path for path in there.files if path not in files and path not in state.kept
    ]
    return Work(tuple(put), tuple(gone))


def kept_paths(
    state: State, held: Set[str], *, owner: str, is_in_place: bool, delete: str
) -> Set[str]:
    """
    Return the paths whose files on disk stay although the source does not bring them.

    ==============  ================  ============================================
    files on disk   ``DELETE=none``   otherwise
    ==============  ================  ============================================
    of this source  all               those of archived objects
    of another one  in place, all     none: those are not what was archived
    nobody knows    all               those of archived objects, which may exist
                                      nowhere else
    ==============  ================  ============================================
    """
    if owner == "other" and not (is_in_place and delete == "none"):
        return frozenset()
    if delete == "none":
        return state.kept | (held - state.files.keys())
    return state.kept


def without_clashes(
    state: State, fold: Callable[[str], str] | None, prefix: str = ""
) -> State:
    """
    Return a state without files that the file system does not distinguish from another
    one, or from a folder, which stays: else the first one in the order of names stays,
    the others are skipped.

    Args:
        fold: What the file system takes names for; None if it distinguishes all of
            them.
        prefix: The prefix of all keys.

    Raises:
        SidecarError: ``release_invalid``: the files belong together.
    """
    if fold is None:
        return state
    # Later ones overwrite: a folder wins, else the first name.
    first = {
        fold(path): path
        for path in (*sorted(state.files, reverse=True), *folders_of(state.files))
    }
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
    return state._replace(files=files, skipped=skipped)


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
            f"{len(gone)} of {held} files are missing from the source; this listing is held back "
            f"for {HOLD_SECONDS / 60:g} minutes"
        )
        return failure("deletion_held", said), HOLD_SECONDS - max(ages)
