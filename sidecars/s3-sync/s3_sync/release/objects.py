"""
The small objects of a release, pointer and manifests, as they are read; and what is said of one
that is missing, wrong or not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_plus

from s3_sync.release.manifest import MANIFEST_LIMIT_BYTES
from s3_sync.release.rows import Invalid
from s3_sync.release.seen import Replayed
from s3_sync.s3.client import S3Client
from s3_sync.s3.entities import unescaped
from s3_sync.s3.refusals import ACTIONS, ObjectError, ObjectMoved, Operation, SourceError
from s3_sync.settings import Settings
from s3_sync.signature import Untrusted
from sidecar_runtime.errors import SidecarError

_KEY = re.compile(r"<Key>([^<]*)</Key>")


class Objects:
    """
    Reads objects by their names under the prefix.
    """

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._prefix = settings.prefix
        self._place = settings.source
        self._client = client

    async def read_part(
        self, key: str, start: int, end: int, headers: Mapping[str, str]
    ) -> tuple[bytes, str]:
        """
        Return a part of a manifest, and its ETag.

        Raises:
            Invalid: It is shorter.
        """
        wanted = {"range": f"bytes={start}-{end - 1}", **headers}
        found = await self.read("manifest", key, MANIFEST_LIMIT_BYTES, wanted)
        body, etag = found or (b"", "")
        if len(body) != end - start:
            body = body[start:end]  # a server that knows no ranges sends all
        if len(body) != end - start:
            raise Invalid("it is shorter than its pointer says")
        return body, etag

    async def read(
        self, operation: Operation, key: str, limit_bytes: int, headers: Mapping[str, str]
    ) -> tuple[bytes, str] | None:
        """
        Return a small object, or a part of it, and its ETag; None where it has the given one.

        Raises:
            ObjectMoved: It is not there, or not the one that was asked for.
            SourceError: It has more bytes than it may have.
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
        Whether an object that may not be read is not there: to whoever may not list all of the
        bucket S3 answers 403 for both, and within an account says which.
        """
        try:
            page = await self._client.list_page(None, key)
        except SidecarError:
            return False
        # Others may begin as it does: `current.json.bak`.
        found = _KEY.findall(page.decode(errors="replace"))
        return not any(key in (unquote_plus(text), unescaped(text)) for text in found)

    def missing(self, key: str, advice: str) -> SourceError:
        return SourceError(
            "release_missing",
            f"there is no {self._place}{key}",
            f"{advice} What is published here stays.",
        )

    def untrusted(self, key: str, why: Untrusted) -> SourceError:
        where = f"{self._place}{key}"
        if isinstance(why, Replayed):
            return SourceError(
                "release_replayed",
                f"{where} is refused: {why}",
                "An old pointer was put back, which is how a release with a known fault returns: "
                "find out who writes there. The next `s3-sync publish` or `rollback` replaces it. "
                "What is published here stays.",
            )
        return SourceError(
            "release_untrusted",
            f"{where} is refused: {why}",
            "Publish with --sign-key and a key of S3_SYNC_TRUSTED_KEYS, or add the public key "
            "that is missing there. If neither is amiss, find out who else writes to the bucket. "
            "What is published here stays.",
        )

    def invalid(self, key: str, why: str) -> SourceError:
        return SourceError(
            "release_invalid",
            f"{self._place}{key} is refused: {why}",
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
