"""
Promotion: makes a release from one place current in another, byte for byte and verified.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.bundle import FileContent
from s3_sync.publisher.catalog import (
    ReleaseError,
    check_not_replayed,
    find_release,
    find_shown,
    incomplete,
    read_current,
    read_manifest,
    read_release,
    read_replaceable,
    resolve,
    untrusted,
)
from s3_sync.publisher.changes import ReleaseChanges, compare, compare_dags, content_of
from s3_sync.publisher.local.folder import write_copy
from s3_sync.publisher.local.scratch import scratch, temporary_failed
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.publish import Judge
from s3_sync.publisher.store import Store
from s3_sync.publisher.upload import upload
from s3_sync.release.content import IncomingContent
from s3_sync.release.facts import Origin
from s3_sync.release.manifest import Head, Manifest
from s3_sync.release.names import bundle_key, manifest_key
from s3_sync.release.pointer import Pointer
from s3_sync.release.rows import Invalid
from s3_sync.release.signed import check_named
from s3_sync.revision import short
from s3_sync.s3.refusals import ObjectError
from s3_sync.signature import Untrusted


@dataclass(frozen=True, slots=True)
class Promotion:
    """
    The result of a promotion.

    Args:
        result: ``promoted``, ``unchanged`` or ``planned``.
        before: The pointer in the target when it began; None if nothing was current.
        dags: The changed DAG ids; None unless those of both releases are known.
        passed: The result of the Airflow check, if that is the gate.
        is_guarded: Whether the target has conditional writes; None if nothing was written.
    """

    result: str
    manifest: Manifest
    before: Pointer | None
    changes: ReleaseChanges
    dags: ReleaseChanges | None
    passed: Passed | None = None
    is_guarded: bool | None = None


def promote(
    source: Store,
    target: Store,
    revision: str | None,
    who: Origin,
    judge: Judge,
    progress: Progress,
    *,
    is_dry: bool,
    repairs: bool = False,
) -> Promotion:
    """
    Make a release of the source current in the target, with the same manifest and bundle.

    If it is killed, either the old or the complete new release is current in the target.

    Args:
        revision: The revision or its first digits; None: the current one of the source.
        who: Who promotes; the rest of the origin is taken from the release.
        repairs: Whether to replace the pointer of the target in any case.

    Raises:
        SidecarError: The release is missing or damaged, the gate refuses it, or another publisher
            was faster.
    """
    named = _current(source) if revision is None else None
    revision = named.revision if named else resolve(source, str(revision))
    found = find_release(source, revision)
    if named is not None and named.manifest_sha256:
        try:
            check_named(found.data, named.manifest_sha256)
        except (Invalid, Untrusted) as error:
            raise untrusted(source, manifest_key(revision), str(error)) from None
    if found.manifest is None or not found.is_whole:
        raise found.sealed or incomplete(revision)
    manifest = found.manifest
    before = read_replaceable(target, repairs=repairs)
    pointer = before.trusted if before else None
    shown = read_manifest(target, pointer.revision) if pointer else None
    dags = compare_dags(shown.head.checked if shown else None, manifest.head.checked)
    planned = Promotion(
        "planned", manifest, pointer, compare(content_of(shown), content_of(manifest)), dags
    )
    is_there = before and pointer and pointer.revision == revision
    if before and pointer and is_there and not repairs and not before.replayed:
        is_signed = target.needs_no_signature(before.signed_by)
        if is_signed and find_shown(target, pointer, reads_bundle=True):
            return replace(planned, result="unchanged")
    with scratch("promote") as place:
        parcel = Fetched(source, revision, manifest, found.data, f"{place}/bundle.zip", progress)
        planned = replace(planned, passed=judge(revision, parcel.write))
        if is_dry:
            return planned
        kept = read_release(target, revision, reads_bundle=True)
        origin = manifest.head.origin._replace(by=who.by, ci_url=who.ci_url)
        _, is_guarded = upload(target, parcel, kept, before, origin, progress, source.url)
    return replace(planned, result="promoted", is_guarded=is_guarded)


def _current(source: Store) -> Pointer:
    current = read_current(source)
    pointer = current.trusted if current else None
    if current is None or pointer is None:
        raise ReleaseError(
            "history_empty",
            f"nothing has been published to {source.url} yet",
            "Check SOURCE, publish to it first, or pass a revision that exists there.",
        )
    check_not_replayed(current)
    return pointer


class Fetched:
    """
    A release of another place, downloaded when it is needed.

    Args:
        path: Where to store the bundle.
    """

    def __init__(
        self,
        source: Store,
        revision: str,
        manifest: Manifest,
        data: bytes,
        path: str,
        progress: Progress,
    ) -> None:
        self.revision = revision
        self._source = source
        self._manifest = manifest
        self._data = data
        self._path = path
        self._progress = progress

    def ready(self) -> tuple[str, Manifest, bytes]:
        """
        Return the path of the bundle, the manifest and its bytes; every file is verified.
        """
        with self._bundle() as bundle:
            for _ in self._contents(bundle):
                pass
        return self._path, self._manifest, self._data

    def write(self, folder: str) -> list[str]:
        """
        Write the verified files into a folder; return their paths.
        """
        with self._bundle() as bundle:
            return write_copy(self._contents(bundle), folder)

    @contextmanager
    def _bundle(self) -> Iterator[int]:
        if not os.path.exists(self._path):
            self._fetch(self._manifest.head)
        fd = os.open(self._path, os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)

    def _fetch(self, head: Head) -> None:
        tell = self._progress.bytes_counter("Downloading", head.bundle_bytes)
        try:
            if not self._source.fetch(bundle_key(head.bundle_sha256), self._path, tell):
                raise incomplete(self.revision)
            with open(self._path, "rb") as bundle:
                found = hashlib.file_digest(bundle, "sha256").hexdigest()
        except OSError as error:
            raise temporary_failed(f"cannot store the bundle in {self._path}", error) from error
        if found != head.bundle_sha256:
            raise self._corrupt(f"its SHA-256 is {found}")

    def _contents(self, bundle: int) -> Iterator[FileContent]:
        """
        Yield each file, verified in the same way as in a pod.
        """
        for file in self._manifest.locate(self._manifest.files.values()):
            data = bytearray()
            content = IncomingContent(file, data.extend)
            try:
                content.write(os.pread(bundle, file.stored_bytes, file.offset))
                content.finish()
            except ObjectError as error:
                raise self._corrupt(error.message) from None
            yield FileContent(file.path, bytes(data), file.is_executable)

    def _corrupt(self, why: str) -> ReleaseError:
        return ReleaseError(
            "bundle_corrupt",
            f"the bundle of {short(self.revision)} does not match its manifest: {why}",
            "Nothing was promoted. Publish its content again to replace the bundle.",
        )
