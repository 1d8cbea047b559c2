"""
One publish: look → gate → bundle → look again → upload → swap → verify.

If it is killed before the swap, the current release stays, and at most unused objects are left:
the next publish of the same content uses them, and `prune-releases` removes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from s3_sync.publisher.airflow.check import Passed
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
    ReleaseChanges,
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
from s3_sync.publisher.upload import put_manifest, upload
from s3_sync.release.facts import Origin
from s3_sync.release.pointer import Pointer
from s3_sync.release.signed import sign_manifest
from s3_sync.revision import revision_of

# Runs the gate on a revision whose files a function writes into a folder. Raises if the gate
# refuses; returns the result of the Airflow check, if that is the gate.
Judge = Callable[[str, Callable[[str], list[str]]], Passed | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The result of a publish.

    Args:
        result: ``published``, ``unchanged`` or ``planned``.
        before: The pointer when it began; None for the first release.
        changes: The changed files; every file is new if the current release is missing.
        dags: The changed DAG ids; None unless those of both releases are known.
        passed: The result of the Airflow check, if that is the gate.
        bundle_bytes: The size of the bundle; 0 if none was needed.
        is_guarded: Whether the server has conditional writes; None if nothing was written.
        stranger: At the first publish, the key of another object under the prefix.
    """

    result: str
    revision: str
    before: Pointer | None
    seen: Look
    changes: ReleaseChanges
    dags: ReleaseChanges | None = None
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
            repairs: Whether to replace the pointer in any case, with a higher sequence, even if
                the object is not a pointer.

        Raises:
            SidecarError: The publish failed; the current release has not changed.
        """
        look(folder, ignore)  # report its problems even if S3 cannot be reached
        # Before the folder is read, so that a concurrent publish is not overwritten unseen.
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
            kept, is_guarded = upload(
                self._store, draft, kept, before, self._origin, self._progress
            )
            size = kept.manifest.head.bundle_bytes if kept.manifest else 0
            return replace(outcome, result="published", bundle_bytes=size, is_guarded=is_guarded)

    def _is_done(self, before: Current, pointer: Pointer) -> bool:
        """
        Whether the current release is whole, signed with our key if we sign, and its pointer is
        not an old one that pods refuse.
        """
        if before.replayed or not self._store.needs_no_signature(before.signed_by):
            return False
        shown = find_shown(self._store, pointer, reads_bundle=True)
        return shown is not None and self._store.needs_no_signature(shown.signed_by)

    def _signed_by_us(self, kept: Kept, revision: str) -> Kept:
        """
        Return a release whose manifest has our signature instead of another trusted one: removing
        the old key must not invalidate the current release.

        The signed content does not change, so the pointer to it is valid at every moment.
        """
        signer = self._store.signer
        if signer is None or not kept.is_good or kept.signed_by == signer.key_id:
            return kept
        data = sign_manifest(kept.data, signer)
        signed = replace(kept, data=data, etag="", signed_by=signer.key_id)
        return put_manifest(self._store, revision, signed, kept)
