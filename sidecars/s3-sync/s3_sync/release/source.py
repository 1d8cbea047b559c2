"""
The source ``release``: what a pointer, or a pin, names.

The pointer is polled with If-None-Match; of the manifest that it names only the chunks are read
that the last release did not have, and of the bundle the files that the target does not have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from s3_sync.release.apply import ReleaseApplier
from s3_sync.release.chunk import Chunk, Entry
from s3_sync.release.facts import time_text
from s3_sync.release.manifest import (
    MANIFEST_LIMIT_BYTES,
    Manifest,
    missing_part,
    parse_head,
    parse_manifest,
    read_manifest,
)
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.objects import Objects
from s3_sync.release.pointer import POINTER_LIMIT_BYTES, Pointer, parse_pointer
from s3_sync.release.rows import File, Invalid
from s3_sync.release.seen import Seen
from s3_sync.release.signed import check_named, signer_of_manifest, signer_of_pointer
from s3_sync.s3.client import Receiver, S3Client
from s3_sync.s3.refusals import ObjectMoved, SourceError
from s3_sync.settings import Settings
from s3_sync.signature import KeyFolder, Keys, Untrusted
from s3_sync.source import Order, State
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

log = get_logger("release")

# Reasons for which another bundle, and so another manifest, may come for the same revision.
OF_THE_BUNDLE = {"bundle_corrupt", "release_missing"}
# A forged manifest that is a little longer is named for what is forged.
SLACK_BYTES = 64 << 10
# A manifest that is no longer is read by one request: some 300 files.
WHOLE_BYTES = 16 << 10
# After these an earlier release may still be one to fall back to.
OF_ONE_RELEASE = {"release_missing", "release_invalid", "release_untrusted"}


class Release(NamedTuple):
    """
    What a manifest says should be on disk.

    Args:
        is_trusted: Whether its signature was verified.
    """

    manifest: Manifest
    is_trusted: bool = False

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
    def kept(self) -> Collection[str]:
        return ()

    @property
    def facts(self) -> Mapping[str, object]:
        head = self.manifest.head
        origin = {name: text for name, text in head.origin._asdict().items() if text}
        checked = {"checked_by": str(head.checked)} if head.checked else {}
        signer = head.signed_by if self.is_trusted else f"{head.signed_by} (not verified)"
        signed = {"signed_by": signer} if head.signed_by else {}
        created = {"created_at": time_text(head.created_at)}
        return {"release": {**created, **checked, **signed, **origin}}

    def key_of(self, path: str) -> str:
        return path


class ReleaseSource:
    """
    The releases under a prefix.
    """

    is_divisible = False

    def __init__(self, settings: Settings, client: S3Client, *, remembers: bool = True) -> None:
        """
        Args:
            remembers: Whether the volume is to remember the turns that were seen.
        """
        self._settings = settings
        self._client = client
        self._objects = Objects(settings, client)
        self._target_bytes = len(settings.dest_path.encode())
        self._pointer_key = f"{settings.prefix}{POINTER_KEY}"
        self._pointer: Pointer | None = None
        self._pointer_etag = ""
        # Of the pointer that the last look met, whether it could be read or not; empty where there
        # was none, None where that look could not tell.
        self._met_etag: str | None = None
        # Of the pointer that the last glance did not find the same.
        self._missed_etag: str | None = None
        self._release: Release | None = None
        # The pointer that it was read by.
        self._read_by: Pointer | None = None
        path = settings.trusted_keys
        self._key_folder = KeyFolder(path) if path else None
        # By one of the keys as they are now.
        self._verified: set[str] = set()
        self._seen = Seen(settings, remembers=remembers)

    async def look(self, fence: Fence) -> Release:
        """
        Return the release that is pinned, or else current.

        Raises:
            SourceError: ``release_missing``, ``release_invalid``: it is not there, or not one.
                ``release_untrusted``, ``release_replayed``, ``trusted_keys_invalid``: it is not to
                be trusted, or nothing is.
        """
        self._met_etag = None
        keys = self._keys()
        pin = self._settings.revision
        if pin and self._release is not None:
            return self._release
        self._client.begin_cycle(fence)
        if pin:
            self._release = await self._read_whole(pin, keys)
            return self._release
        pointer = await self._poll(keys, fence)
        if self._release is None:
            self._release = await self._read_whole(pointer.revision, keys, pointer)
        elif self._read_by is None or _manifest_of(pointer) != _manifest_of(self._read_by):
            is_small = pointer.manifest_bytes <= WHOLE_BYTES
            self._release = await (
                self._read_whole(pointer.revision, keys, pointer)
                if is_small
                else self._read_news(pointer, keys, self._release)
            )
        self._read_by = pointer
        return self._release

    async def find(self, revision: str, fence: Fence) -> Release:
        """
        Return a release by its id, whichever is current.

        Raises:
            SourceError: As from :meth:`look`, but for the pointer.
        """
        self._client.begin_cycle(fence)
        try:
            return await self._read_whole(revision, self._keys())
        except SourceError as error:
            if error.reason == "release_missing":
                error.advice = "It was pruned: `prune-releases --keep-from` keeps what runs need."
            raise

    def vouches_for(self, revision: str) -> bool:
        """
        Whether a release may be given to consumers without another look; for any thread.
        """
        return self._key_folder is None or revision in self._verified

    def is_settled(self, state: State[File], published: str, *, is_first: bool) -> bool:
        return True

    @property
    def unrest(self) -> None:
        return None

    async def still_gone(self, paths: Collection[str], fence: Fence) -> Collection[str]:
        return paths

    def suspects(self) -> Collection[str]:
        return ()

    async def bring(self, order: Order[File]) -> None:
        release = order.state
        assert isinstance(release, Release)  # nothing else comes from here
        self._client.begin_cycle(order.fence)
        try:
            with self._bundle(release.manifest) as key:
                await ReleaseApplier(self._client, order, key, release.manifest).take()
        except SidecarError as error:
            if error.reason in OF_THE_BUNDLE and release is self._release:
                self._release = None
            raise

    async def try_bundle(self, receiver: Receiver) -> None:
        """
        Read the first byte of the bundle.

        Raises:
            SidecarError: It is not there, or cannot be read.
        """
        assert self._release is not None
        with self._bundle(self._release.manifest) as key:
            await self._client.get("bundle", key, lambda: {"range": "bytes=0-0"}, 1, receiver)

    async def earlier(self, fence: Fence) -> AsyncIterator[Release]:
        """
        Yield what was current before, but nothing that a rollback has left; a pin is obeyed, so
        nothing replaces it.
        """
        if self._settings.revision or self._pointer is None:
            return
        keys, seen = self._keys(), {self._pointer.revision}
        for turn in self._pointer.earlier():
            if turn.revision in seen:
                continue
            seen.add(turn.revision)
            try:
                yield await self._read_whole(turn.revision, keys)
            except SourceError as error:
                if error.reason not in OF_ONE_RELEASE:
                    raise

    @property
    def was_reached(self) -> bool:
        # Where a glance saw news and there were none it cannot tell: through a proxy, or from a
        # server that does not heed If-None-Match. Then a failure is waited out.
        return self._met_etag not in (None, self._missed_etag)

    def glance(self) -> bool:
        if self._key_folder is not None and self._key_folder.has_changed:
            return False
        if self._settings.revision:
            return self._release is not None
        etag = self._met_etag
        is_same = etag is not None and self._client.has_still("pointer", self._pointer_key, etag)
        self._missed_etag = None if is_same else etag
        return is_same

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _bundle(self, manifest: Manifest) -> Iterator[str]:
        """
        Yield the key of the bundle.

        Raises:
            SourceError: ``release_missing``, where it turns out that it is not there.
        """
        key = bundle_key(manifest.head.bundle_sha256)
        try:
            yield f"{self._settings.prefix}{key}"
        except ObjectMoved:
            raise self._objects.missing(
                key, f"Publish release {manifest.revision} again, or roll back to another."
            ) from None

    def _keys(self) -> Keys | None:
        """
        Return the keys that are trusted; None where nothing has to be signed.

        Raises:
            SourceError: ``trusted_keys_invalid``: there are none, so nothing can be trusted.
        """
        if self._key_folder is None:
            return None
        try:
            keys, is_new = self._key_folder.read()
        except ValueError as error:
            raise SourceError(
                "trusted_keys_invalid",
                f"S3_SYNC_TRUSTED_KEYS={self._settings.trusted_keys} {error}",
                "Put the public keys there again, in PEM; nothing is trusted until then. What is "
                "published here stays.",
            ) from None
        if is_new:  # whatever others vouched for has to be vouched for again
            self._pointer_etag, self._release = "", None
            self._verified.clear()
        return keys

    async def _poll(self, keys: Keys | None, fence: Fence) -> Pointer:
        """
        Return the pointer; the same one where it has not changed.
        """
        etag = self._pointer_etag
        try:
            headers = {"if-none-match": etag} if etag else {}
            found = await self._objects.read("pointer", POINTER_KEY, POINTER_LIMIT_BYTES, headers)
        except ObjectMoved:
            self._pointer_etag = self._met_etag = ""
            raise self._objects.missing(
                POINTER_KEY,
                "Nothing was published there yet: `s3-sync publish`, or check KEY_PATH.",
            ) from None
        if found is None and self._pointer is not None:
            self._met_etag = etag
            return self._pointer
        self._pointer_etag = ""
        body, etag = found or (b"", "")
        self._met_etag = etag or None
        settings = self._settings
        try:
            if keys is None:
                pointer = parse_pointer(body)
                self._warn_of_replay(pointer)
            else:
                key_id = signer_of_pointer(body, settings.bucket, settings.prefix, keys)
                pointer = parse_pointer(body)
                self._seen.check(pointer.turn, keys)
                # Before its manifest is read: whoever deletes that could put back the pointer
                # before it, and nobody would be told.
                self._seen.note(pointer.turn, key_id, fence)
        except Invalid as error:
            raise self._objects.invalid(POINTER_KEY, str(error)) from None
        except Untrusted as error:
            raise self._objects.untrusted(POINTER_KEY, error) from None
        self._pointer, self._pointer_etag = pointer, etag
        return pointer

    def _warn_of_replay(self, pointer: Pointer) -> None:
        """
        Warn where an old pointer was put back: only a new one is a rollback.
        """
        if self._pointer is not None and pointer.turn.sequence < self._pointer.turn.sequence:
            log.warning(
                "release_replayed",
                sequence=pointer.turn.sequence,
                sequence_before=self._pointer.turn.sequence,
                revision=pointer.revision,
                advice="It is followed. `s3-sync rollback` would have counted on: find out who "
                f"wrote {self._settings.source}{POINTER_KEY}.",
            )

    async def _read_whole(
        self, revision: str, keys: Keys | None, pointer: Pointer | None = None
    ) -> Release:
        """
        Read a manifest; what it says proves its revision.

        Args:
            pointer: The one that names it, if any does.
        """
        key = manifest_key(revision)
        limit_bytes = MANIFEST_LIMIT_BYTES
        if keys is not None and pointer is not None:  # a signed one says how long it is
            limit_bytes = min(limit_bytes, pointer.manifest_bytes + SLACK_BYTES)
        try:
            found = await self._objects.read("manifest", key, limit_bytes, {})
        except ObjectMoved:
            raise self._objects.missing(
                key,
                "It was pruned, or never published: `s3-sync releases` shows what there is."
                if self._settings.revision
                else "Publish again: that repairs it. Or roll back to another release.",
            ) from None
        body, _ = found or (b"", "")
        try:
            _check_signed(body, keys, pointer)
            return self._checked(parse_manifest(body, self._target_bytes), revision, keys)
        except Invalid as error:
            raise self._objects.invalid(key, str(error)) from None
        except Untrusted as error:
            raise self._objects.untrusted(key, error) from None

    async def _read_news(self, pointer: Pointer, keys: Keys | None, before: Release) -> Release:
        """
        Read of a manifest what the release before does not have.
        """
        key = manifest_key(pointer.revision)
        known: dict[Entry, Chunk] = {chunk.entry: chunk for chunk in before.manifest.chunks}
        try:
            head_part, etag = await self._objects.read_part(key, 0, pointer.head_bytes, {})
            _check_signed(head_part, keys, pointer)
            head, at = parse_head(head_part)
            start, end = missing_part(head, known)
            part = b""
            if start < end:
                same = {"if-match": etag} if etag else {}
                part, _ = await self._objects.read_part(key, at + start, at + end, same)
            manifest = read_manifest(head, part, known, self._target_bytes)
            return self._checked(manifest, pointer.revision, keys)
        except (ObjectMoved, Invalid, Untrusted):
            # It was replaced meanwhile, or the pointer is wrong about it: all of it tells.
            return await self._read_whole(pointer.revision, keys, pointer)

    def _checked(self, manifest: Manifest, revision: str, keys: Keys | None) -> Release:
        if manifest.revision != revision:
            raise Invalid(f"it is the manifest of {manifest.revision}")
        if keys is not None:
            self._verified.add(revision)
        return Release(manifest, keys is not None)


def _check_signed(data: bytes, keys: Keys | None, pointer: Pointer | None) -> None:
    """
    Check all that a manifest has before its chunks, where it has to be signed.

    Raises:
        Untrusted: It is not signed by one of the keys, or not the one that its pointer names.
        Invalid: It is not the beginning of a manifest.
    """
    if keys is not None:
        signer_of_manifest(data, keys)
        if pointer is not None:
            check_named(data, pointer.manifest_sha256)


def _manifest_of(pointer: Pointer) -> tuple[str, int, int, str]:
    """
    Return what a pointer says of its manifest: of one revision there may be several.
    """
    return (
        pointer.revision,
        pointer.manifest_bytes,
        pointer.head_bytes,
        pointer.manifest_sha256,
    )
