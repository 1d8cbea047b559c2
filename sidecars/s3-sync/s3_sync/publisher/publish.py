"""
One publish: look → gate → bundle → look again → upload → swing → verify.

Killed anywhere, what was current stays current, and all that is left is an object that nobody
names; the next publish uses it, and `prune-releases` removes it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from s3_sync.publisher.catalog import (
    Current,
    Kept,
    find_stranger,
    incomplete,
    is_shown,
    read_current,
    read_release,
)
from s3_sync.publisher.draft import Draft
from s3_sync.publisher.folder import Look, check_same, digests_of, look
from s3_sync.publisher.ignore import Ignore
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.store import Store
from s3_sync.publisher.swap import check_ours, has_conditions, swap_pointer
from s3_sync.release.facts import Origin
from s3_sync.release.pointer import Pointer, Turn
from s3_sync.revision import revision_of

# A release whose objects vanish while it is published, by a prune beside us, is put back.
TRIES = 3

# Judges a revision; raises where it refuses.
Judge = Callable[[str, Look, Mapping[str, str]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What a publish did.

    Args:
        result: ``published``, ``unchanged`` or ``planned``.
        before: What was current when it began; None for the first release.
        bundle_bytes: Size of the bundle; 0 where none was asked for.
        is_guarded: Whether the server has conditional writes; None where none was needed.
        stranger: Looked for at the first publish: something else that lies under the prefix.
    """

    result: str
    revision: str
    before: Pointer | None
    seen: Look
    bundle_bytes: int = 0
    is_guarded: bool | None = None
    stranger: str = ""


class Publisher:
    """
    Publishes one folder, once.
    """

    def __init__(self, store: Store, origin: Origin, judge: Judge, progress: Progress) -> None:
        self._store = store
        self._origin = origin
        self._judge = judge
        self._progress = progress

    def publish(self, folder: str, ignore: Ignore, *, is_dry: bool) -> Outcome:
        """
        Make the content of a folder the current release.

        Raises:
            SidecarError: It cannot be; what was current stays current.
        """
        look(folder, ignore)  # its problems are reported even if S3 cannot be reached
        # Before the folder is read: else what others publish meanwhile would be overwritten unseen.
        before = read_current(self._store)
        pointer = before.pointer if before else None
        seen = look(folder, ignore)
        tell = self._progress.counter("Reading files", len(seen.files))
        digests = digests_of(seen.files, tell)
        revision = revision_of((f.path, digests[f.path], f.is_executable) for f in seen.files)
        is_same = pointer is not None and pointer.revision == revision
        if pointer and is_same and is_shown(self._store, pointer, reads_bundle=True):
            check_same(seen, look(folder, ignore))
            return Outcome("unchanged", revision, pointer, seen)
        self._judge(revision, seen, digests)
        stranger = find_stranger(self._store) if before is None else ""
        if is_dry:
            return Outcome("planned", revision, pointer, seen, stranger=stranger)
        with tempfile.TemporaryDirectory(prefix="s3-sync-publish-") as place:
            draft = Draft(revision, seen, digests, self._origin, f"{place}/bundle.zip")
            kept = read_release(self._store, revision, reads_bundle=True)
            if kept is None or not kept.is_whole:
                draft.build(self._progress)
            check_same(seen, look(folder, ignore))
            return replace(self._bring(draft, kept, before), stranger=stranger)

    def _bring(self, draft: Draft, kept: Kept | None, before: Current | None) -> Outcome:
        """
        Upload what is not there, swing the pointer, and see that all it names is there.
        """
        store, base = self._store, before
        old = before.pointer if before else None
        for _ in range(TRIES):
            kept = draft.upload(store, kept, self._progress)
            pointer = _next(old, draft.revision, kept, self._origin)
            is_guarded = has_conditions(store, draft.revision, kept.data, base)
            swap_pointer(store, pointer, base, is_guarded=is_guarded)
            if is_shown(store, pointer):
                size = kept.manifest.head.bundle_bytes if kept.manifest else 0
                return Outcome("published", draft.revision, old, draft.seen, size, is_guarded)
            base = read_current(store)
            check_ours(base, pointer)
            kept = read_release(store, draft.revision)
        raise incomplete(draft.revision)


def _next(old: Pointer | None, revision: str, kept: Kept, origin: Origin) -> Pointer:
    """
    Return the new pointer; where it repairs what is current, its history stays as it was.
    """
    turn = Turn(revision, 1, datetime.now(UTC))
    history: tuple[Turn, ...] = ()
    if old is not None:
        is_repair = old.revision == revision
        turn = replace(
            turn, sequence=old.turn.sequence + 1, restores=old.turn.restores if is_repair else 0
        )
        history = old.history if is_repair else old.turns()
    return Pointer(turn, len(kept.data), kept.head_bytes, origin, history)
