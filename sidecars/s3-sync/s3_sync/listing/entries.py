"""
What a listing says: the objects that should be files, and what cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from s3_sync.s3.refusals import SourceError


class Entry(NamedTuple):
    """
    One object that should become a file. There may be very many: its key is not held, as it is
    prefix and path.

    Args:
        path: Relative to the target.
        etag: Without quotes; empty where the listing has none that can be asked for, or no size.
        prefix: Of the listing that it is in.
    """

    path: str
    etag: str
    size_bytes: int
    prefix: str = ""

    @property
    def key(self) -> str:
        return self.prefix + self.path


class Listing(NamedTuple):
    """
    The whole prefix at one moment: what should be on disk, what cannot be, and its name.

    Args:
        newest: When the newest object was written, as S3 writes it (ISO 8601, UTC).
        kept: Paths of archived objects.
    """

    wanted: dict[str, Entry]
    skipped: dict[str, str]
    revision: str
    newest: str = ""
    kept: frozenset[str] = frozenset()

    @property
    def facts(self) -> Mapping[str, object]:
        return {}

    def key_of(self, path: str) -> str:
        return self.wanted[path].key


def listing_invalid(message: str) -> SourceError:
    """
    Return the error for an answer that cannot be trusted; nothing is changed because of one.
    """
    return SourceError(
        "listing_invalid",
        f"the listing cannot be trusted: {message}",
        "Nothing was changed. If it persists, check for a proxy that alters S3's responses.",
    )
