"""
The source ``release``: the release that the pointer names, or the pinned one.

The pointer is polled with If-None-Match; then the manifest is read, and those files of the bundle
that the target does not have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import unescape
from urllib.parse import unquote_plus

from s3_sync.download import Work
from s3_sync.plan import State
from s3_sync.release.fetch import fetch
from s3_sync.release.format import (
    MANIFEST_LIMIT_BYTES,
    POINTER_KEY,
    POINTER_LIMIT_BYTES,
    Invalid,
    Manifest,
    Pointer,
    bundle_key,
    manifest_key,
    parse_manifest,
    parse_pointer,
    time_text,
)
from s3_sync.s3.client import Receiver, S3Client
from s3_sync.s3.refusals import ACTIONS, ObjectError, ObjectMoved, Operation, SourceError
from s3_sync.settings import Settings
from s3_sync.signature import Keys, Untrusted, read_keys, split_signature
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

_KEY = re.compile(r"<Key>([^<]*)</Key>")

log = get_logger("release")


class ReleaseSource:
    """
    The releases under a prefix.

    Attributes:
        sequence: The highest sequence seen, and the key that signed it; from `published.json` at
            first.
    """

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._settings = settings
        self._client = client
        self._keys: Keys | None = None
        self.sequence: tuple[int, str] = (0, "")
        self._pointer: Pointer | None = None
        self._etag = ""
        self._state: State | None = None

    async def read(self, fence: Fence) -> State:
        """
        Return the pinned release, or else the current one; the same object while it is the same.

        Raises:
            SourceError: ``release_missing``, ``release_invalid``: it is missing or malformed.
                ``release_untrusted``, ``release_replayed``, ``trusted_keys_invalid``: it is not
                trusted, or no key is.
            CycleAbandoned: The fence was revoked.
        """
        revision = self._settings.revision
        if revision is None:
            self._read_keys()
            self._client.begin_cycle(fence)
            revision = (await self._poll()).revision
        if self._state is None or self._state.revision != revision:
            self._state = await self.find(revision, fence)
        elif self._state.sequence != self.sequence:
            facts = {"release": self._facts(self._state.detail)}
            self._state = self._state._replace(sequence=self.sequence, facts=facts)
        return self._state

    async def find(self, revision: str, fence: Fence) -> State:
        """
        Return a release by its id, which proves its content.

        Raises:
            SourceError: As from :meth:`read`, except for the pointer.
        """
        self._client.begin_cycle(fence)
        key = manifest_key(revision)
        try:
            body, _ = await self._get("manifest", key, MANIFEST_LIMIT_BYTES)
            manifest = parse_manifest(body, revision, len(self._settings.dest_path.encode()))
        except ObjectMoved:
            raise self._missing(
                key,
                "It was pruned, or never published: publish its content again, or use another "
                "release. `prune-releases --keep-from` keeps what runs need.",
            ) from None
        except Invalid as error:
            raise self._invalid(key, error) from None
        return State(
            revision,
            manifest.files,
            facts={"release": self._facts(manifest)},
            is_whole=True,
            detail=manifest,
            sequence=self.sequence,
        )

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
        except ObjectError:
            if state is self._state:  # a publish may have given it another bundle and manifest
                self._state = None
            raise

    async def try_bundle(self, state: State, receiver: Receiver) -> None:
        """
        Read the first byte of the bundle.

        Raises:
            SidecarError: It does not exist, or cannot be read.
        """
        with self._bundle(state.detail) as key:
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

    # --- the pointer

    def _read_keys(self) -> None:
        """
        Read the trusted keys, if signatures are required.

        Raises:
            SourceError: ``trusted_keys_invalid``: no valid keys, so nothing can be trusted.
        """
        path, before = self._settings.trusted_keys, self._keys
        if path is None:
            return
        try:
            self._keys = read_keys(path)
        except ValueError as error:
            raise SourceError(
                "trusted_keys_invalid",
                f"S3_SYNC_TRUSTED_KEYS={path} {error}",
                "Restore the public keys, in PEM format; nothing is trusted until then. The "
                "published files stay.",
            ) from None
        if self._keys != before:  # the pointer has to be verified again, with the new keys
            self._etag = ""

    async def _poll(self) -> Pointer:
        """
        Return the pointer; the same object if it has not changed.
        """
        etag, self._etag = self._etag, ""
        try:
            body, found = await self._get("pointer", POINTER_KEY, POINTER_LIMIT_BYTES, etag)
        except _Unchanged:
            assert self._pointer is not None
            self._etag = etag
            return self._pointer
        except ObjectMoved:
            raise self._missing(
                POINTER_KEY,
                "Nothing has been published there yet. Run `s3-sync publish`, or check KEY_PATH.",
            ) from None
        try:
            self._pointer = self._trusted(body)
        except Invalid as error:
            raise self._invalid(POINTER_KEY, error) from None
        except Untrusted as error:
            raise self._error(
                "release_untrusted",
                f"{self._settings.source}{POINTER_KEY} is refused: {error}",
                "Publish with --sign-key and a trusted key, or add the missing public key to "
                "S3_SYNC_TRUSTED_KEYS. If the keys are correct, find out who else writes there.",
            ) from None
        self._etag = found
        return self._pointer

    def _trusted(self, data: bytes) -> Pointer:
        """
        Verify and parse a pointer, and remember its sequence.
        """
        body, signature = split_signature(data)
        settings, keys, signed_by = self._settings, self._keys, ""
        if keys is not None:
            signed_by = keys.signer_of(body, settings.bucket, settings.prefix, signature)
        pointer = parse_pointer(body)
        seen, seen_by = self.sequence
        if keys is not None and seen_by not in keys.by_id:
            seen = 0  # replacing a stolen key also discards the sequences that the thief signed
        if pointer.turn.sequence < seen:
            said = f"its sequence is {pointer.turn.sequence}, but {seen} was already seen here"
            if keys is not None:
                raise self._error(
                    "release_replayed",
                    f"{settings.source}{POINTER_KEY} is refused: {said}",
                    "An old pointer was restored, which could bring back a release with a known "
                    "flaw. Find out who writes there. The next `s3-sync publish` or `rollback` "
                    "replaces it.",
                )
            log.warning(
                "release_replayed",
                problem=said,
                revision=pointer.revision,
                advice="It is followed. `s3-sync rollback` would have raised the sequence, so find "
                f"out who wrote {settings.source}{POINTER_KEY}.",
            )
        self.sequence = pointer.turn.sequence, signed_by
        return pointer

    # --- objects

    async def _get(
        self, operation: Operation, key: str, limit_bytes: int, etag: str = ""
    ) -> tuple[bytes, str]:
        """
        Return a small object and its ETag.

        Raises:
            ObjectMoved: It does not exist.
            _Unchanged: It still has this ETag.
            SourceError: It is larger than the limit.
        """
        whole_key = f"{self._settings.prefix}{key}"
        page = _SmallObject(limit_bytes)
        headers = {"if-none-match": etag} if etag else {}
        try:
            answer = await self._client.get(
                operation, whole_key, lambda: headers, limit_bytes, page
            )
        except Invalid as error:
            raise self._invalid(key, error) from None
        except ObjectError as error:
            if error.permission is not None and (
                error.permission.action == ACTIONS["list"] or await self._is_missing(whole_key)
            ):
                raise ObjectMoved from None
            raise
        if answer.status == 304:
            raise _Unchanged
        return b"".join(page.chunks), answer.headers.get("etag", "")

    async def _is_missing(self, key: str) -> bool:
        """
        Whether an object whose read was denied does not exist. Without permission to list the
        whole bucket, S3 answers 403 in both cases; listing the key tells them apart.
        """
        try:
            page = await self._client.list_page(None, key)
        except SidecarError:
            return False
        # Other keys may have it as prefix: `current.json.bak`.
        found = _KEY.findall(page.decode(errors="replace"))
        return not any(key in (unquote_plus(text), unescape(text)) for text in found)

    @contextmanager
    def _bundle(self, manifest: Manifest) -> Iterator[str]:
        """
        Yield the key of the bundle.

        Raises:
            SourceError: ``release_missing``, if the bundle turns out not to exist.
        """
        key = bundle_key(manifest.bundle_sha256)
        try:
            yield f"{self._settings.prefix}{key}"
        except ObjectMoved:
            self._state = None
            raise self._missing(
                key, f"Publish release {manifest.revision} again, or roll back to another."
            ) from None

    def _missing(self, key: str, advice: str) -> SourceError:
        what = f"{self._settings.source}{key} does not exist"
        return self._error("release_missing", what, advice)

    def _invalid(self, key: str, why: Invalid) -> SourceError:
        return self._error(
            "release_invalid",
            f"{self._settings.source}{key} is refused: {why}",
            "Find out what else writes there besides s3-sync, then publish again or roll back.",
        )

    def _error(self, reason: str, message: str, advice: str) -> SourceError:
        error = SourceError(reason, message, f"{advice} The published files stay.")
        # The next release, or a rollback, must not wait for a backoff.
        error.retry_within_seconds = self._settings.interval_seconds
        return error

    def _facts(self, manifest: Manifest) -> dict[str, str]:
        checked = {"checked_by": str(manifest.checked)} if manifest.checked else {}
        signer = self.sequence[1]
        signed = {"signed_by": signer} if signer and not self._settings.revision else {}
        created = {"created_at": time_text(manifest.created_at)}
        return {**created, **checked, **signed, **manifest.origin.facts()}


class _Unchanged(Exception):
    pass


class _SmallObject:
    """
    Receives a small object into memory.
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
            raise Invalid(f"it has more than {self._limit_bytes} bytes")
        self.chunks.append(chunk)
