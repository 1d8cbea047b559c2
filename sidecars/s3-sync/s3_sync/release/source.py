"""
The source ``release``: what a pointer, or a pin, names.

The pointer is polled with If-None-Match; the manifest that it names is read once, and the bundle
only for the files that the target does not have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from s3_sync.digest import sha256_of
from s3_sync.release.apply import ReleaseApplier
from s3_sync.release.facts import time_text
from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES, Manifest, parse_manifest
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import POINTER_LIMIT_BYTES, Pointer, parse_pointer
from s3_sync.release.rows import File, Invalid
from s3_sync.s3.client import Receiver, S3Client
from s3_sync.s3.refusals import ObjectError, ObjectMoved, Operation, SourceError
from s3_sync.settings import Settings
from s3_sync.source import Order, State
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence


@dataclass(frozen=True, slots=True)
class Release:
    """
    What a manifest says should be on disk.
    """

    manifest: Manifest

    @property
    def revision(self) -> str:
        return self.manifest.revision

    @property
    def wanted(self) -> Mapping[str, File]:
        return self.manifest.files

    @property
    def skipped(self) -> Mapping[str, str]:
        return {}

    @property
    def facts(self) -> Mapping[str, object]:
        origin = {name: text for name, text in asdict(self.manifest.origin).items() if text}
        return {"release": {"created_at": time_text(self.manifest.created_at), **origin}}

    def key_of(self, path: str) -> str:
        return path


class ReleaseSource:
    """
    The releases under a prefix.
    """

    is_divisible = False

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._settings = settings
        self._client = client
        self._target_bytes = len(settings.dest_path.encode())
        self._pointer_key = f"{settings.prefix}{POINTER_KEY}"
        self._pointer: Pointer | None = None
        self._pointer_etag = ""
        # Of the pointer that the last look met, whether it could be read or not.
        self._met_etag = ""
        # Of the pointer that the last glance did not find the same.
        self._missed_etag = ""
        self._release: Release | None = None
        self._manifest_sha256 = ""

    async def look(self, fence: Fence) -> Release:
        """
        Return the release that is pinned, or else current.

        Raises:
            SourceError: ``release_missing``, ``release_invalid``: it is not there, or not one.
        """
        self._met_etag = ""
        pin = self._settings.revision
        if pin and self._release is not None:
            return self._release
        self._client.begin_cycle(fence)
        if pin:
            self._release = await self._read_manifest(pin, MANIFEST_LIMIT_BYTES, "")
            return self._release
        pointer = await self._poll()
        if self._release is None or self._manifest_sha256 != pointer.manifest_sha256:
            self._release = await self._read_manifest(
                pointer.revision, pointer.manifest_bytes, pointer.manifest_sha256
            )
            self._manifest_sha256 = pointer.manifest_sha256
        return self._release

    def is_settled(self, state: State[File], published: str, *, is_first: bool) -> bool:
        return True

    async def still_gone(self, paths: Collection[str], fence: Fence) -> Collection[str]:
        return paths

    def suspects(self) -> Collection[str]:
        return ()

    async def bring(self, order: Order[File]) -> None:
        release = order.state
        assert isinstance(release, Release)  # nothing else comes from here
        self._client.begin_cycle(order.fence)
        try:
            with self._bundle(release.manifest) as (key, size_bytes):
                await ReleaseApplier(self._client, order, key, size_bytes).take()
        except SidecarError:
            # A second publish repairs it, and may write another manifest: no pointer tells a pin.
            if self._settings.revision:
                self._release = None
            raise

    async def try_bundle(self, receiver: Receiver) -> None:
        """
        Read the first byte of the bundle.

        Raises:
            SidecarError: It is not there, or cannot be read.
        """
        assert self._release is not None
        with self._bundle(self._release.manifest) as (key, _):
            await self._client.get("bundle", key, lambda: {"range": "bytes=0-0"}, 1, receiver)

    async def earlier(self, fence: Fence) -> AsyncIterator[Release]:
        """
        Yield what was current before; a pin is obeyed, so nothing replaces it.
        """
        if self._settings.revision or self._pointer is None:
            return
        for revision in self._pointer.history:
            if revision == self._pointer.revision:
                continue
            try:
                yield await self._read_manifest(revision, MANIFEST_LIMIT_BYTES, "")
            except SourceError as error:
                if error.reason not in ("release_missing", "release_invalid"):
                    raise

    @property
    def was_reached(self) -> bool:
        # Where a glance saw news and there were none it cannot tell: through a proxy, or from a
        # server that does not heed If-None-Match. Then a failure is waited out.
        return self._met_etag not in ("", self._missed_etag)

    def glance(self) -> bool:
        if self._settings.revision:
            return self._release is not None
        etag = self._met_etag
        is_same = bool(etag) and self._client.has_still("pointer", self._pointer_key, etag)
        self._missed_etag = "" if is_same else etag
        return is_same

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _bundle(self, manifest: Manifest) -> Iterator[tuple[str, int]]:
        """
        Yield key and size of the bundle.

        Raises:
            SourceError: ``release_missing``, where it turns out that it is not there.
        """
        key = bundle_key(manifest.bundle_sha256)
        try:
            yield f"{self._settings.prefix}{key}", manifest.bundle_bytes
        except ObjectMoved:
            raise self._missing(
                key, f"Publish release {manifest.revision} again, or roll back to another."
            ) from None

    async def _poll(self) -> Pointer:
        """
        Return the pointer; the same one where it has not changed.
        """
        etag = self._pointer_etag
        try:
            found = await self._read("pointer", POINTER_KEY, POINTER_LIMIT_BYTES, etag)
        except ObjectMoved:
            self._pointer_etag = ""
            raise self._missing(
                POINTER_KEY,
                "Nothing was published there yet: `s3-sync publish`, or check KEY_PATH.",
            ) from None
        if found is None and self._pointer is not None:
            self._met_etag = etag
            return self._pointer
        self._pointer_etag = ""
        body, etag = found or (b"", "")
        self._met_etag = etag
        try:
            self._pointer = parse_pointer(body)
        except Invalid as error:
            raise self._invalid(POINTER_KEY, str(error)) from None
        self._pointer_etag = etag
        return self._pointer

    async def _read_manifest(self, revision: str, limit_bytes: int, sha256: str) -> Release:
        """
        Read a manifest.

        Args:
            sha256: That it must have; empty where nobody says it. Its files prove its revision.
        """
        key = manifest_key(revision)
        try:
            found = await self._read("manifest", key, limit_bytes, "")
        except ObjectMoved:
            raise self._missing(
                key,
                "It was pruned, or never published: `s3-sync releases` shows what there is."
                if self._settings.revision
                else "Publish again: that repairs it. Or roll back to another release.",
            ) from None
        body, _ = found or (b"", "")
        if sha256 and sha256_of(body) != sha256:
            raise self._invalid(key, f"its SHA-256 is {sha256_of(body)}, not {sha256}")
        try:
            manifest = parse_manifest(body, self._target_bytes)
        except Invalid as error:
            raise self._invalid(key, str(error)) from None
        if manifest.revision != revision:
            raise self._invalid(key, f"it is the manifest of {manifest.revision}")
        return Release(manifest)

    async def _read(
        self, operation: Operation, key: str, limit_bytes: int, etag: str
    ) -> tuple[bytes, str] | None:
        """
        Return a small object and its ETag; None where it still has the given one.

        Raises:
            ObjectMoved: It is not there.
            SourceError: It has more bytes than it may have.
        """
        headers = {"if-none-match": etag} if etag else {}
        whole_key = f"{self._settings.prefix}{key}"
        page = _SmallObject(limit_bytes)
        try:
            answer = await self._client.get(
                operation, whole_key, lambda: headers, limit_bytes, page
            )
        except _TooLong:
            raise self._invalid(key, f"it has more than {limit_bytes} bytes") from None
        except ObjectError as error:
            if error.permission is not None and await self._is_missing(whole_key):
                raise ObjectMoved from None
            raise
        if answer.status == 304:
            return None
        return b"".join(page.chunks), answer.headers.get("etag", "")

    async def _is_missing(self, key: str) -> bool:
        """
        Whether an object that may not be read is not there: to who may not list all of the bucket
        S3 answers 403 for both.
        """
        try:
            page = await self._client.list_page(None, key)
        except SidecarError:
            return False
        return b"<Key>" not in page

    def _missing(self, key: str, advice: str) -> SourceError:
        return SourceError(
            "release_missing",
            f"there is no {self._settings.source}{key}",
            f"{advice} What is published here stays.",
        )

    def _invalid(self, key: str, why: str) -> SourceError:
        return SourceError(
            "release_invalid",
            f"{self._settings.source}{key} is refused: {why}",
            "What is published here stays. Only `s3-sync publish` and `rollback` should write "
            "there; publish again, or roll back.",
        )


class _TooLong(Exception):
    pass


class _SmallObject:
    """
    Receives a small object.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.restart()

    def restart(self) -> None:
        self.chunks: list[bytes] = []
        self._size_bytes = 0

    def write(self, chunk: bytes) -> None:
        self._size_bytes += len(chunk)
        if self._size_bytes > self._limit_bytes:
            raise _TooLong
        self.chunks.append(chunk)
