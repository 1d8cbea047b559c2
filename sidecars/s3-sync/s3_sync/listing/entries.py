"""
The content of a listing: the objects that should become files, and those that cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from s3_sync.s3.refusals import SourceError


class Entry(NamedTuple):
    """
    One object that should become a file. There may be very many, so the key is not stored: it is
    prefix plus path.

    Args:
        path: Relative to the target.
        etag: Without quotes; empty if the listing has no usable ETag or no size.
        prefix: The prefix of the listing.
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
    The whole prefix at one moment: wanted files, keys that cannot be files, and the revision.

    Args:
        newest: When the newest object was written, in S3's format (ISO 8601, UTC).
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
    Return the error for an invalid listing, which never changes anything.
    """
    return SourceError(
        "listing_invalid",
        f"the listing cannot be trusted: {message}",
        "Nothing was changed. If it persists, find out what alters S3's responses (a proxy?).",
    )
