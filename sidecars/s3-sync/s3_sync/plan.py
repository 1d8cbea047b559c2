"""
What a cycle has to do, or why nothing yet: :func:`decide`. Pure.

What holds a change back is remembered in `holds.py`. Whether files are deleted at all
(``S3_SYNC_DELETE``) is decided by :func:`kept_paths`. What is decided here is done
elsewhere: `build.py` brings files, `listing.py` confirms deletions, `layout/` deletes
and shows; `unread.py` says what rests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from s3_sync.holds import Holds
from s3_sync.names import Content, Files, folders_of, not_held
from s3_sync.published import Published
from sidecar_runtime.errors import SidecarError


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
        is_snapshot: Whether this is a snapshot: its name says which files it has.
    """

    files: Mapping[str, Content] = {}
    intact: Mapping[str, Content] = {}
    published: Published | None = None
    is_ready: bool = False
    is_snapshot: bool = False


class Work(NamedTuple):
    """
    That a tree has to be brought up to date with the state.

    Args:
        delete: Paths of files whose key was deleted.
    """

    delete: Set[str] = frozenset()


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
    if holds.settle:
        why, seconds = holds.settle
        return Wait(now + seconds, why)
    # Somebody may have deleted the wrong folder, and undo it. A one-shot need not wait
    # for that: all files of before are there.
    if holds.brake:
        why, seconds = holds.brake
        return Wait(now + seconds, why, is_enough=True)
    # A refusal stops a change, never a repair: without a ready state, the gate's
    # fallback is looked for.
    published = there.published
    if holds.refusal and there.is_ready:
        return Wait(None, holds.refusal)
    # To compare thousands of files would be the longest part of a quiet cycle. In place
    # it is needed: a killed process may have left a file of another state there. A
    # snapshot may lack files that the volume where it was made did not distinguish.
    if (
        there.is_snapshot
        and there.is_ready
        and published
        and published.name == published.aim == state.revision
        and published.files == len(state.files)
    ):
        return Done()
    gone = there.files.keys() - state.files.keys() - state.kept
    # Another revision is work even without a difference: the record has to name it.
    if published is None or not there.is_ready or published.aim != state.revision:
        return Work(gone)
    # A change is a different ETag or size; times are never compared.
    left = not_held(state.files, state.files, there.intact)
    # As many are missing as the record says, and nothing stands in for a refused state.
    is_same = published.missing == len(left) and not published.fallback
    # What could not be read rests until its next try, which takes a build.
    due = set(left) - holds.resting
    if gone or due or not is_same:
        return Work(gone)
    return Done(left)


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
    return state._replace(
        files=files,
        skipped={**state.skipped, **{prefix + path: "name_clash" for path in clashing}},
    )
