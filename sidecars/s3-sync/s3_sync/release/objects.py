"""
Reads the small objects of a release, pointer and manifests, and makes the errors for one that is
missing, invalid or not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from urllib.parse import unquote_plus

from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES
from s3_sync.release.rows import Invalid
from s3_sync.release.seen import Replayed
from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import ACTIONS, ObjectError, ObjectMoved, Operation, SourceError
from s3_sync.settings import Settings
from s3_sync.signature import Untrusted
from sidecar_runtime.errors import SidecarError

_KEY = re.compile(r"<Key>([^<]*)</Key>")


class Objects:
    """
    Reads objects by their keys relative to the prefix.
    """

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._prefix = settings.prefix
        self._place = settings.source
        self._interval_seconds = settings.interval_seconds
        self._client = client

    async def read_part(
        self, key: str, start: int, end: int, headers: Mapping[str, str]
    ) -> tuple[bytes, str]:
        """
        Return a part of a manifest, and its ETag.

        Raises:
            Invalid: The manifest is too short.
        """
        wanted = {"range": f"bytes={start}-{end - 1}", **headers}
        found = await self.read("manifest", key, MANIFEST_LIMIT_BYTES, wanted)
        body, etag = found or (b"", "")
        if len(body) != end - start:
            body = body[start:end]  # a server without ranges sends the whole object
        if len(body) != end - start:
            raise Invalid("it is shorter than its pointer says")
        return body, etag

    async def read(
        self, operation: Operation, key: str, limit_bytes: int, headers: Mapping[str, str]
    ) -> tuple[bytes, str] | None:
        """
        Return a small object, or a part of it, and its ETag; None if it is unchanged (304).

        Raises:
            ObjectMoved: It does not exist, or is not the requested version.
            SourceError: It is larger than the limit.
        """
        whole_key = f"{self._prefix}{key}"
        page = _SmallObject(limit_bytes)
        try:
            answer = await self._client.get(
                operation, whole_key, lambda: headers, limit_bytes, page
            )
        except _TooLong:
            raise self.invalid(key, f"it has more than {limit_bytes} bytes") from None
        except ObjectError as error:
            if error.permission is not None and (
                error.permission.action == ACTIONS["list"] or await self._is_missing(whole_key)
            ):
                raise ObjectMoved from None
            raise
        if answer.status == 304:
            return None
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

    def missing(self, key: str, advice: str) -> SourceError:
        return self._error("release_missing", f"{self._place}{key} does not exist", advice)

    def untrusted(self, key: str, why: Untrusted) -> SourceError:
        message = f"{self._place}{key} is refused: {why}"
        if isinstance(why, Replayed):
            return self._error(
                "release_replayed",
                message,
                "An old pointer was restored, which could bring back a release with a known flaw. "
                "Find out who writes there. The next `s3-sync publish` or `rollback` replaces it.",
            )
        return self._error(
            "release_untrusted",
            message,
            "Publish with --sign-key and a trusted key, or add the missing public key to "
            "S3_SYNC_TRUSTED_KEYS. If the keys are correct, find out who else writes there.",
        )

    def invalid(self, key: str, why: str) -> SourceError:
        return self._error(
            "release_invalid",
            f"{self._place}{key} is refused: {why}",
            "Find out what else writes there besides s3-sync, then publish again or roll back.",
        )

    def _error(self, reason: str, message: str, advice: str) -> SourceError:
        error = SourceError(reason, message, f"{advice} The published files stay.")
        # The next release, or a rollback, must not wait for a backoff.
        error.retry_within_seconds = self._interval_seconds
        return error


class _TooLong(Exception):
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
            raise _TooLong
        self.chunks.append(chunk)
