"""
One publish: look → gate → bundle → look again → upload → swing → verify.

Killed anywhere, what was current stays current, and all that is left is an object that nobody
names; the next publish uses it, and `prune-releases` removes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.bring import bring, put_manifest
from s3_sync.publisher.catalog import (
    Current,
    Kept,
    find_shown,
    find_stranger,
    read_manifest,
    read_release,
    read_replaceable,
)
from s3_sync.publisher.changes import (
    Changes,
    compare,
    compare_dags,
    content_of,
    content_of_folder,
)
from s3_sync.publisher.draft import Draft
from s3_sync.publisher.local.folder import Look, check_same, contents, digests_of, look, write_copy
from s3_sync.publisher.local.ignore import Ignore
from s3_sync.publisher.local.scratch import scratch
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.store import Store
from s3_sync.release.facts import Origin
from s3_sync.release.pointer import Pointer
from s3_sync.release.signed import sign_manifest
from s3_sync.revision import revision_of

# Judges a revision whose files a function writes into a folder; raises where it refuses, and
# returns what Airflow said, where that was asked.
Judge = Callable[[str, Callable[[str], list[str]]], Passed | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What a publish did.

    Args:
        result: ``published``, ``unchanged`` or ``planned``.
        before: What was current when it began; None for the first release.
        changes: Against what was current; all is new where that is not there.
        dags: The same of the ids of DAGs; None where they are not known of both.
        passed: What Airflow said, where it was asked.
        bundle_bytes: Size of the bundle; 0 where none was asked for.
        is_guarded: Whether the server has conditional writes; None where none was needed.
        stranger: Looked for at the first publish: something else that lies under the prefix.
    """

    result: str
    revision: str
    before: Pointer | None
    seen: Look
    changes: Changes
    dags: Changes | None = None
    passed: Passed | None = None
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

    def publish(
        self, folder: str, ignore: Ignore, *, is_dry: bool, repairs: bool = False
    ) -> Outcome:
        """
        Make the content of a folder the current release.

        Args:
            repairs: Whether the pointer is replaced in any case: by one of a higher sequence, and
                where it is not one at all.

        Raises:
            SidecarError: It cannot be; what was current stays current.
        """
        look(folder, ignore)  # its problems are reported even if S3 cannot be reached
        # Before the folder is read: else what others publish meanwhile would be overwritten unseen.
        before = read_replaceable(self._store, repairs=repairs)
        pointer = before.trusted if before else None
        seen = look(folder, ignore)
        tell = self._progress.counter("Reading files", len(seen.files))
        digests = digests_of(seen.files, tell)
        revision = revision_of((f.path, digests[f.path], f.is_executable) for f in seen.files)
        is_there = before and pointer and pointer.revision == revision
        if before and pointer and is_there and not repairs and self._is_done(before, pointer):
            check_same(seen, look(folder, ignore))
            return Outcome("unchanged", revision, pointer, seen, compare({}, {}))

        def write(place: str) -> list[str]:
            return write_copy(contents(seen, digests, lambda _: None), place)

        passed = self._judge(revision, write)
        checked = passed.checked if passed else None
        shown = read_manifest(self._store, pointer.revision) if pointer else None
        outcome = Outcome(
            "planned",
            revision,
            pointer,
            seen,
            compare(content_of(shown), content_of_folder(seen, digests)),
            compare_dags(shown.head.checked if shown else None, checked),
            passed,
            stranger=find_stranger(self._store) if before is None else "",
        )
        if is_dry:
            return outcome
        with scratch("publish") as place:
            path = f"{place}/bundle.zip"
            signer = self._store.signer
            draft = Draft(
                revision, seen, digests, self._origin, checked, path, self._progress, signer
            )
            kept = read_release(self._store, revision, reads_bundle=True)
            if kept is None or not kept.is_good:
                draft.build()
            check_same(seen, look(folder, ignore))
            kept = kept and self._signed_by_us(kept, revision)
            kept, is_guarded = bring(self._store, draft, kept, before, self._origin, self._progress)
            size = kept.manifest.head.bundle_bytes if kept.manifest else 0
            return replace(outcome, result="published", bundle_bytes=size, is_guarded=is_guarded)

    def _is_done(self, before: Current, pointer: Pointer) -> bool:
        """
        Whether what is current is whole, signed by our own key where we sign, and no old pointer
        that pods refuse.
        """
        if before.replayed or not self._store.needs_no_signature(before.signed_by):
            return False
        shown = find_shown(self._store, pointer, reads_bundle=True)
        return shown is not None and self._store.needs_no_signature(shown.signed_by)

    def _signed_by_us(self, kept: Kept, revision: str) -> Kept:
        """
        Return a release with our signature in place of another that is trusted: a key that goes
        must not take along what is current.

        What is signed is not changed, so the pointer that names it holds at every moment.
        """
        signer = self._store.signer
        if signer is None or not kept.is_good or kept.signed_by == signer.key_id:
            return kept
        data = sign_manifest(kept.data, signer)
        signed = replace(kept, data=data, etag="", signed_by=signer.key_id)
        return put_manifest(self._store, revision, signed, kept)
