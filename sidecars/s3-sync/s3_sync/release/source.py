"""
The source ``release``: the release that the pointer names, or the pinned one.

The pointer is polled with If-None-Match; then the manifest is read, and those files of
the bundle that the target does not have. Each file is inflated, verified and put into
place while it arrives.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from s3_sync.download import at_once
from s3_sync.plan import State, without_clashes
from s3_sync.reasons import Failures, ObjectError, ObjectMoved, SourceError
from s3_sync.release import format as form
from s3_sync.release import read_trusted_keys
from s3_sync.release.format import File, IncomingContent, Manifest, Pointer
from s3_sync.s3.client import Get, S3Client
from s3_sync.s3.http import Headers, WireError
from s3_sync.s3.refusals import ACTIONS
from s3_sync.settings import Settings
from s3_sync.tree import Fill
from s3_sync.volume import Staging, Volume
from sidecar_runtime.errors import SettingsError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import write_all

if TYPE_CHECKING:
    from s3_sync.release.signature import Keys

# Gaps up to this size are downloaded and discarded rather than requested around: a
# request costs 0.2 ms of CPU and 20 ms of waiting, 64 KiB from S3 about 0.05 ms and 1
# ms.
GAP_BYTES = 64 << 10
_PUBLISH_AGAIN = "Publish it again, or roll back."


class ReleaseSource:
    """
    The releases under a prefix.

    """

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._settings = settings
        self._client = client
        self._keys: Keys | None = None
        # The highest sequence seen of each key.
        self._seen: dict[str, int] = {}
        self._pointer: Pointer | None = None
        self._etag = ""
        self._manifest: Manifest | None = None

    async def read(self, fence: Fence, seen: Mapping[str, int]) -> State:
        """
        Return the pinned release, or else the current one.

        Raises:
            SourceError: ``release_missing``, ``release_invalid``: it is missing or
                malformed. ``release_untrusted``, ``release_replayed``,
                ``trusted_keys_invalid``: it is not trusted, or no key is.
            CycleAbandoned: The fence was revoked.
        """
        revision = self._settings.revision
        if revision is None:
            self._read_keys()
        # What was seen counts, here or on the volume, of the keys that are
        # trusted: a stolen one takes the sequences along that the thief has signed, but
        # not those of the others.
        trusted = {*seen, *self._seen} if self._keys is None else self._keys.by_id
        self._seen = {
            key: max(self._seen.get(key, 0), seen.get(key, 0)) for key in trusted
        }
        if revision is None:
            await self._client.ensure_credentials(fence)
            revision = (await self._poll()).revision
        if self._manifest is None or self._manifest.revision != revision:
            self._manifest = await self._read_manifest(revision, fence)
        return self._state_of(self._manifest)

    async def find(self, revision: str, volume: Volume, fence: Fence) -> State:
        """
        Return a release by its id, which proves its content.

        Raises:
            SidecarError: As from :meth:`read`, except for the pointer; also
                ``release_invalid`` if the volume cannot have it.
        """
        manifest = await self._read_manifest(revision, fence)
        return without_clashes(self._state_of(manifest), volume.fold)

    async def confirm_deletions(self, paths: Collection[str], fence: Fence) -> set[str]:
        """
        Return all paths: a release says itself which files it has.
        """
        return set(paths)

    async def fetch(
        self,
        paths: Sequence[str],
        state: State,
        fill: Fill,
        before: Failures,
    ) -> None:
        """
        Bring files of a release into a folder; a crash leaves verified files and at
        most one staging file for each connection.

        Raises:
            SidecarError: The bundle cannot be read, or does not match its manifest.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        manifest: Manifest = state.detail
        await self._client.ensure_credentials(fill.fence)
        files = manifest.files
        missing = [
            files[path]
            for path in paths
            if not fill.tree.adopt(path, files[path], fill.fence)
        ]
        for file in missing:
            if not file.stored_bytes:
                Cutter([file], fill).take(file, b"")
        groups = join_ranges(missing)
        queue = iter(groups)
        with self._reading(
            form.bundle_key(manifest.bundle_sha256), _PUBLISH_AGAIN
        ) as key:
            await at_once(lambda: self._read_next(key, queue, fill), len(groups))

    async def try_bundle(self, state: State) -> None:
        """
        Read the first byte of the bundle.

        Raises:
            SidecarError: It does not exist, or cannot be read.
        """
        with self._reading(
            form.bundle_key(state.detail.bundle_sha256), _PUBLISH_AGAIN
        ) as key:
            await self._client.get(
                Get("bundle", key, 1, lambda: {"range": "bytes=0-0"})
            )

    def earlier(self) -> list[str]:
        """
        Return the releases before the current one, newest first, except those that a
        rollback has left; none if a release is pinned, because a pin must not be
        replaced.
        """
        pointer = self._pointer
        if pointer is None:
            return []
        return [
            one.revision for one in pointer.history if one.revision != pointer.revision
        ]

    # --- the pointer

    def _read_keys(self) -> None:
        """
        Read the trusted keys, if signatures are required.

        Raises:
            SourceError: ``trusted_keys_invalid``: no valid keys, so nothing can be
                trusted.
        """
        try:
            keys = read_trusted_keys(self._settings)
        except SettingsError as error:
            raise self._error("trusted_keys_invalid", error.message) from None
        # the pointer has to be verified again, with the new keys
        if keys != self._keys:
            self._keys = keys
            self._etag = ""

    async def _poll(self) -> Pointer:
        """
        Return the pointer; the same object if it has not changed.
        """
        etag = self._etag
        self._etag = ""
        headers = {"if-none-match": etag} if etag else {}
        with self._reading(
            form.POINTER_KEY,
            "Nothing has been published there yet. Run `s3-sync publish`, or check KEY_PATH.",
        ) as key:
            answer = await self._client.get(
                Get("pointer", key, form.POINTER_LIMIT_BYTES, lambda: headers)
            )
            if answer.status != 304 or self._pointer is None:
                etag = answer.headers.get("etag", "")
                self._pointer = self._trusted(answer.body)
        self._etag = etag
        return self._pointer

    def _trusted(self, data: bytes) -> Pointer:
        """
        Verify and read a pointer, and remember its sequence.
        """
        settings = self._settings
        seen = max(self._seen.values(), default=0)
        pointer, signed_by = form.read_pointer(
            data, self._keys, settings.bucket, settings.prefix
        )
        if self._keys is not None and pointer.turn.sequence < seen:
            raise self._error(
                "release_replayed",
                f"{settings.source}{form.POINTER_KEY} is an old pointer: its sequence is "
                f"{pointer.turn.sequence}, but {seen} was already seen here",
            )
        self._seen = self._seen | {signed_by: pointer.turn.sequence}
        return pointer

    # --- manifest and bundle

    async def _read_manifest(self, revision: str, fence: Fence) -> Manifest:
        await self._client.ensure_credentials(fence)
        with self._reading(
            form.manifest_key(revision),
            "It was pruned, or never published: publish its content again, or use another "
            "release (S3_SYNC_REVISION, if it is set). `prune-releases --keep-from` keeps what "
            "runs need.",
        ) as key:
            answer = await self._client.get(
                Get("manifest", key, form.MANIFEST_LIMIT_BYTES)
            )
            return form.parse_manifest(
                answer.body,
                revision,
                len(self._settings.dest_path.encode()),
                self._manifest.files if self._manifest else (),
            )

    def _state_of(self, manifest: Manifest) -> State:
        return State(
            manifest.revision,
            manifest.files,
            facts={"release": {"created_at": manifest.created_at, **manifest.origin}},
            is_whole=True,
            detail=manifest,
            sequences=self._seen,
        )

    async def _read_next(
        self, key: str, queue: Iterator[list[File]], fill: Fill
    ) -> None:
        for files in queue:
            cutter = Cutter(files, fill)
            size_bytes = files[-1].end - files[0].offset
            try:
                if time.monotonic() < fill.until:
                    await self._client.get(
                        Get("bundle", key, size_bytes, cutter.headers, fill.until),
                        cutter,
                    )
                    if cutter.left:
                        raise ObjectError(
                            "bundle_corrupt",
                            f"the bundle ends before {cutter.left[-1].path!r}",
                        )
            except WireError:
                if time.monotonic() < fill.until:
                    raise
            finally:
                cutter.restart()
                fill.downloaded_bytes += cutter.received_bytes
            fill.unreached.update(file.path for file in cutter.left)  # the time is up

    # --- errors

    @contextmanager
    def _reading(self, key: str, advice: str) -> Iterator[str]:
        """
        Yield the whole key of an object; explain why it cannot be used.

        Args:
            advice: What to do if it does not exist.

        Raises:
            SourceError: It does not exist, is malformed, or is not trusted.
        """
        where = f"{self._settings.source}{key}"
        try:
            yield f"{self._settings.prefix}{key}"
        except form.Invalid as error:
            raise self._error(error.reason, f"{where} is refused: {error}") from None
        except (ObjectMoved, ObjectError) as error:
            # A publish may have written the bundle again, and with it the manifest. A
            # requested release that does not exist says nothing about the current one.
            manifest = self._manifest
            if manifest and key == form.bundle_key(manifest.bundle_sha256):
                self._manifest = None
            # S3 does not tell an identity that may not list whether an object exists.
            if isinstance(error, ObjectMoved) or ACTIONS["list"] in (
                error.permission or ()
            ):
                raise self._error(
                    "release_missing", f"{where} does not exist", advice
                ) from None
            if key != form.POINTER_KEY:
                error.retry_within_seconds = self._settings.interval_seconds
            raise

    def _error(self, reason: str, message: str, advice: str = "") -> SourceError:
        error = SourceError(reason, message, advice)
        error.advice += " The published files stay."
        # The next release, or a rollback, must not wait for a backoff.
        error.retry_within_seconds = self._settings.interval_seconds
        return error


def join_ranges(files: Iterable[File]) -> list[list[File]]:
    """
    Group files with stored bytes into requests, in the order of the bundle.
    """
    groups: list[list[File]] = []
    stored = (file for file in files if file.stored_bytes)
    for file in sorted(stored, key=lambda file: file.offset):
        if not groups or file.offset - groups[-1][-1].end > GAP_BYTES:
            groups.append([])
        groups[-1].append(file)
    return groups


class Cutter:
    """
    Receives one part of a bundle, and puts its files into place.

    Args:
        files: The files to extract, in the order of the bundle.

    Attributes:
        left: The files that have not arrived, the next one last.
    """

    def __init__(self, files: Sequence[File], fill: Fill) -> None:
        self.left = [*reversed(files)]
        self._last = files[-1]
        self._fill = fill
        self._at = 0
        self._incoming: tuple[Staging, IncomingContent] | None = None
        self.received_bytes = 0

    def restart(self) -> None:
        """
        Discard the incomplete file, if any, and go back to its beginning.
        """
        if self._incoming:
            self._fill.tree.staging.discard(self._incoming[0])
            self._incoming = None
        # The last file again, if only the end of the response was lost.
        self._at = (self.left[-1] if self.left else self._last).offset

    def headers(self) -> Headers:
        """
        Return the headers that request the missing rest.
        """
        return {"range": f"bytes={self._at}-{self._last.end - 1}"}

    def write(self, chunk: bytes) -> None:
        """
        Process the next bytes, in pieces of any size.

        Raises:
            ObjectError: A file does not match the manifest.
            OSError: The volume fails.
        """
        self.received_bytes += len(chunk)
        start = self._at
        self._at += len(chunk)
        while self.left and (file := self.left[-1]).offset < self._at:
            self.take(file, chunk[max(file.offset - start, 0) : file.end - start])
            if file.end > self._at:
                return
            self.left.pop()

    def take(self, file: File, piece: bytes) -> None:
        """
        Unpack the next bytes of a file; after the last ones, verify it and rename it
        into place.
        """
        fill = self._fill
        is_last = file.end <= self._at or not file.stored_bytes
        if self._incoming is None:
            staging = fill.tree.staging.open()
            self._incoming = (
                staging,
                IncomingContent(file, partial(write_all, staging.fd)),
            )
        staging, content = self._incoming
        try:
            content.write(piece)
            if is_last:
                content.finish()
                staging.is_verified = True
                fill.tree.put(file.path, file, staging, fill.fence)
        finally:
            if is_last:
                fill.tree.staging.discard(staging)
                self._incoming = None
