"""
The source ``release``: the release that the pointer names, or the pinned one.

The pointer is polled with If-None-Match. Only those chunks of the manifest are read that the last
release did not have, and only those files of the bundle that the target does not have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from s3_sync.plan import State
from s3_sync.release.chunk import Chunk, ChunkEntry
from s3_sync.release.facts import time_text
from s3_sync.release.fetch import fetch
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
from s3_sync.release.rows import Invalid
from s3_sync.release.seen import Seen
from s3_sync.release.signed import check_named, signer_of_manifest, signer_of_pointer
from s3_sync.s3.client import Receiver, S3Client
from s3_sync.s3.refusals import ObjectMoved, SourceError
from s3_sync.settings import Settings
from s3_sync.signature import KeyFolder, Keys, Untrusted
from s3_sync.work import Work
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

log = get_logger("release")

# After these reasons, the same revision may get another bundle, and with it another manifest.
OF_THE_BUNDLE = {"bundle_corrupt", "release_missing"}
# Reads a forged manifest that is slightly too long, so that the error reports the forgery.
SLACK_BYTES = 64 << 10
# A manifest up to this size, about 300 files, is read with one request.
WHOLE_BYTES = 16 << 10


class _Release(NamedTuple):
    """
    A manifest, and whether its signature was verified.
    """

    manifest: Manifest
    is_trusted: bool = False

    @property
    def state(self) -> State:
        """
        The state that the manifest describes.
        """
        head = self.manifest.head
        origin = {name: text for name, text in head.origin._asdict().items() if text}
        checked = {"checked_by": str(head.checked)} if head.checked else {}
        signer = head.signed_by if self.is_trusted else f"{head.signed_by} (not verified)"
        signed = {"signed_by": signer} if head.signed_by else {}
        created = {"created_at": time_text(head.created_at)}
        facts = {"release": {**created, **checked, **signed, **origin}}
        files = self.manifest.files
        return State(head.revision, files, facts=facts, is_whole=True, detail=self.manifest)


class ReleaseSource:
    """
    The releases under a prefix.
    """

    def __init__(self, settings: Settings, client: S3Client, *, remembers: bool = True) -> None:
        """
        Args:
            remembers: Whether to record seen turns on the volume.
        """
        self._settings = settings
        self._client = client
        self._objects = Objects(settings, client)
        self._target_bytes = len(settings.dest_path.encode())
        self._pointer: Pointer | None = None
        self._pointer_etag = ""
        self._release: _Release | None = None
        self._state: State | None = None
        # The pointer through which the release was read.
        self._read_by: Pointer | None = None
        path = settings.trusted_keys
        self._key_folder = KeyFolder(path) if path else None
        # Revisions verified with the keys that are trusted now.
        self._verified: set[str] = set()
        self._seen = Seen(settings, remembers=remembers)

    async def read(self, fence: Fence) -> State:
        """
        Return the pinned release, or else the current one; the same object while it is the same.

        Raises:
            SourceError: ``release_missing``, ``release_invalid``: it is missing or malformed.
                ``release_untrusted``, ``release_replayed``, ``trusted_keys_invalid``: it is not
                trusted, or no key is.
            CycleAbandoned: The fence was revoked.
        """
        before = self._release
        release = await self._look(fence)
        if self._state is None or release is not before:
            self._state = release.state
        return self._state

    async def _look(self, fence: Fence) -> _Release:
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

    async def find(self, revision: str, fence: Fence) -> State:
        """
        Return a release by its id, current or not.

        Raises:
            SourceError: As from :meth:`read`, except for the pointer.
        """
        self._client.begin_cycle(fence)
        try:
            return (await self._read_whole(revision, self._keys())).state
        except SourceError as error:
            if error.reason == "release_missing":
                error.advice = "It was pruned. `prune-releases --keep-from` keeps what runs need."
            raise

    def vouches_for(self, revision: str) -> bool:
        """
        Whether a release may be served to consumers without verifying it again; thread-safe.
        """
        return self._key_folder is None or revision in self._verified

    async def confirm(self, paths: Collection[str], fence: Fence) -> set[str]:
        """
        Return all paths: a release says itself which files it has.
        """
        return set(paths)

    async def fetch(
        self, paths: Sequence[str], state: State, work: Work, before: Mapping[str, SidecarError]
    ) -> None:
        """
        Bring files of a release into a folder.

        Raises:
            SidecarError: The bundle cannot be read, or does not match its manifest.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        self._client.begin_cycle(work.fence)
        try:
            with self._bundle(state.detail) as key:
                await fetch(self._client, key, state.detail, paths, work)
        except SidecarError as error:
            if error.reason in OF_THE_BUNDLE and state is self._state:
                self._release = None
            raise

    async def try_bundle(self, receiver: Receiver) -> None:
        """
        Read the first byte of the bundle.

        Raises:
            SidecarError: It does not exist, or cannot be read.
        """
        assert self._release is not None
        with self._bundle(self._release.manifest) as key:
            await self._client.get("bundle", key, lambda: {"range": "bytes=0-0"}, 1, receiver)

    def earlier(self) -> list[str]:
        """
        Return the releases before the current one, newest first, except those that a rollback has
        left; none if a release is pinned, because a pin must not be replaced.
        """
        if self._settings.revision or self._pointer is None:
            return []
        current = self._pointer.revision
        return [turn.revision for turn in self._pointer.earlier() if turn.revision != current]

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _bundle(self, manifest: Manifest) -> Iterator[str]:
        """
        Yield the key of the bundle.

        Raises:
            SourceError: ``release_missing``, if the bundle turns out not to exist.
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
        Return the trusted keys; None if signatures are not required.

        Raises:
            SourceError: ``trusted_keys_invalid``: no valid keys, so nothing can be trusted.
        """
        if self._key_folder is None:
            return None
        try:
            keys, is_new = self._key_folder.read()
        except ValueError as error:
            self._verified.clear()
            raise SourceError(
                "trusted_keys_invalid",
                f"S3_SYNC_TRUSTED_KEYS={self._settings.trusted_keys} {error}",
                "Restore the public keys, in PEM format; nothing is trusted until then. The "
                "published files stay.",
            ) from None
        if is_new:  # everything has to be verified again, with the new keys
            self._pointer_etag, self._release = "", None
            self._verified.clear()
        return keys

    async def _poll(self, keys: Keys | None, fence: Fence) -> Pointer:
        """
        Return the pointer; the same object if it has not changed.
        """
        etag = self._pointer_etag
        try:
            headers = {"if-none-match": etag} if etag else {}
            found = await self._objects.read("pointer", POINTER_KEY, POINTER_LIMIT_BYTES, headers)
        except ObjectMoved:
            self._pointer_etag = ""
            raise self._objects.missing(
                POINTER_KEY,
                "Nothing has been published there yet. Run `s3-sync publish`, or check KEY_PATH.",
            ) from None
        if found is None and self._pointer is not None:
            return self._pointer
        self._pointer_etag = ""
        body, etag = found or (b"", "")
        settings = self._settings
        try:
            if keys is None:
                pointer = parse_pointer(body)
                self._warn_of_replay(pointer)
            else:
                key_id = signer_of_pointer(body, settings.bucket, settings.prefix, keys)
                pointer = parse_pointer(body)
                self._seen.check(pointer.turn, keys)
                # Before its manifest is read: otherwise, deleting that manifest and restoring
                # the previous pointer would go unnoticed.
                self._seen.note(pointer.turn, key_id, fence)
        except Invalid as error:
            raise self._objects.invalid(POINTER_KEY, str(error)) from None
        except Untrusted as error:
            raise self._objects.untrusted(POINTER_KEY, error) from None
        self._pointer, self._pointer_etag = pointer, etag
        return pointer

    def _warn_of_replay(self, pointer: Pointer) -> None:
        """
        Warn if an old pointer was restored: a rollback writes a new one.
        """
        if self._pointer is not None and pointer.turn.sequence < self._pointer.turn.sequence:
            log.warning(
                "release_replayed",
                sequence=pointer.turn.sequence,
                sequence_before=self._pointer.turn.sequence,
                revision=pointer.revision,
                advice="It is followed. `s3-sync rollback` would have raised the sequence, so find "
                f"out who wrote {self._settings.source}{POINTER_KEY}.",
            )

    async def _read_whole(
        self, revision: str, keys: Keys | None, pointer: Pointer | None = None
    ) -> _Release:
        """
        Read a whole manifest, whose content proves its revision.

        Args:
            pointer: The pointer that names it, if any.
        """
        key = manifest_key(revision)
        limit_bytes = MANIFEST_LIMIT_BYTES
        if keys is not None and pointer is not None:  # a signed pointer gives its size
            limit_bytes = min(limit_bytes, pointer.manifest_bytes + SLACK_BYTES)
        try:
            found = await self._objects.read("manifest", key, limit_bytes, {})
        except ObjectMoved:
            raise self._objects.missing(
                key,
                "It was pruned, or never published: `s3-sync releases` lists the existing releases."
                if self._settings.revision
                else "Publish the content again to restore it, or roll back to another release.",
            ) from None
        body, _ = found or (b"", "")
        try:
            _check_signed(body, keys, pointer)
            return self._checked(parse_manifest(body, self._target_bytes), revision, keys)
        except Invalid as error:
            raise self._objects.invalid(key, str(error)) from None
        except Untrusted as error:
            raise self._objects.untrusted(key, error) from None

    async def _read_news(self, pointer: Pointer, keys: Keys | None, before: _Release) -> _Release:
        """
        Read those parts of a manifest that the previous release does not have.
        """
        key = manifest_key(pointer.revision)
        known: dict[ChunkEntry, Chunk] = {chunk.entry: chunk for chunk in before.manifest.chunks}
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
            # It was replaced meanwhile, or does not match the pointer: read all of it.
            return await self._read_whole(pointer.revision, keys, pointer)

    def _checked(self, manifest: Manifest, revision: str, keys: Keys | None) -> _Release:
        if manifest.revision != revision:
            raise Invalid(f"it is the manifest of {manifest.revision}")
        if keys is not None:
            self._verified.add(revision)
        return _Release(manifest, keys is not None)


def _check_signed(data: bytes, keys: Keys | None, pointer: Pointer | None) -> None:
    """
    Check the part of a manifest before its chunks, if signatures are required.

    Raises:
        Untrusted: It is not signed with one of the keys, or not the one that its pointer names.
        Invalid: It is not the beginning of a manifest.
    """
    if keys is not None:
        signer_of_manifest(data, keys)
        if pointer is not None:
            check_named(data, pointer.manifest_sha256)


def _manifest_of(pointer: Pointer) -> tuple[str, int, int, str]:
    """
    Return what identifies the manifest of a pointer: a revision may have several.
    """
    return (
        pointer.revision,
        pointer.manifest_bytes,
        pointer.head_bytes,
        pointer.manifest_sha256,
    )
