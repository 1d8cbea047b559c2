"""
Pages of ListObjectsV2 → one listing of the prefix.

A page whose bytes did not change since the last cycle is not parsed again; on a quiet bucket a
poll costs one digest for each page.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_plus

from s3_sync.keys import POINTER
from s3_sync.listing.entries import Entry, Listing, listing_invalid
from s3_sync.listing.pages import Item, Page, PageReader, fingerprint_of
from s3_sync.s3.entities import unescaped
from s3_sync.s3.refusals import SourceError

_TOKEN = b"ContinuationToken>"
# A valid page has two of these elements.
TAGS_LIMIT = 8
_TOKEN_ELEMENT = re.compile(rb"<(Next)?ContinuationToken>([^<]*)</(?(1)Next)ContinuationToken>")
_TRUNCATED = re.compile(rb"<IsTruncated>\s*(true|false)\s*</IsTruncated>")


class Lister:
    """
    Reads listings, and remembers the last one.

    Args:
        fetch_page: Returns the page for a continuation token (None for the first page).
        is_wanted: The include and exclude filter.
        target_bytes: Length of the target's own path.
        max_keys: A listing with more keys is refused; 0: no limit.
    """

    def __init__(
        self,
        fetch_page: Callable[[str | None], Awaitable[bytes]],
        prefix: str,
        is_wanted: Callable[[str], bool],
        target_bytes: int,
        max_keys: int,
    ) -> None:
        self._max_keys = max_keys
        self._fetch_page = fetch_page
        self._reader = PageReader(prefix, is_wanted, target_bytes, self._known)
        self._pages: dict[bytes, Page] = {}
        self._digests: list[bytes] = []
        self._gathered: dict[bytes, Item] | None = None
        self._listing: Listing | None = None

    async def read(self) -> Listing:
        """
        Return the listing; the same object while nothing changes.

        Raises:
            SourceError: S3 rejected the request, or the response contradicts itself.
        """
        self._gathered = None
        pages: dict[bytes, Page] = {}
        digests: list[bytes] = []
        token: str | None = None
        seen: set[str] = set()
        keys = 0
        while True:
            body = await self._fetch_page(token)
            tokens = _find_tokens(body)
            _check_echo(tokens, token)
            digest = hashlib.blake2b(_without(tokens, body), digest_size=16).digest()
            page = self._pages.get(digest) or pages.get(digest)
            pages[digest] = page = page or self._reader.read(body)
            digests.append(digest)
            keys += len(page.items)
            if keys > self._max_keys > 0:
                raise _too_many(self._max_keys)
            token = _next_token(tokens, body)
            if token is None:
                break
            if token in seen:
                raise listing_invalid("a continuation token was repeated")
            seen.add(token)
        if self._listing is None or digests != self._digests:
            ordered = [pages[digest] for digest in digests]
            _check_order(ordered)
            joined, last = _join(ordered), self._listing
            # A page may differ in a key that is not wanted, or in the time of the same content.
            if last is None or joined != last._replace(newest=joined.newest):
                self._listing = joined
            self._pages, self._digests = pages, digests
        self._gathered = None
        assert self._listing is not None
        return self._listing

    def _known(self) -> dict[bytes, Item]:
        """
        Return all items of the last listing; gathered at most once per read, if a page changed.
        """
        if self._gathered is None:
            self._gathered = {}
            for page in self._pages.values():
                self._gathered.update(page.known)
        return self._gathered


def _too_many(limit: int) -> SourceError:
    return SourceError(
        "too_many_keys",
        f"the prefix contains more than {limit} keys",
        "Set KEY_PATH to the DAG folder only. Filters do not help, because S3 lists every key. If "
        "the folder is right, raise S3_SYNC_MAX_KEYS and the container's memory limit: about "
        "1 MiB for each 1,000 keys.",
    )


def _find_tokens(body: bytes) -> list[re.Match[bytes]]:
    """
    Return the token elements of a page.

    A plain search finds them, because unchanged pages are not parsed and a regular expression
    takes longer than the digest. The elements around keys never contain ``<`` in their text. If
    too many candidates match, for example in key names, the regular expression is used instead.
    """
    found: list[re.Match[bytes]] = []
    at = body.find(_TOKEN)
    for _ in range(TAGS_LIMIT):
        if at < 0:
            return found
        element = _TOKEN_ELEMENT.match(body, body.rfind(b"<", max(0, at - len("<Next")), at))
        if element:
            found.append(element)
        at = body.find(_TOKEN, element.end() if element else at + 1)
    return list(_TOKEN_ELEMENT.finditer(body))


def _without(elements: list[re.Match[bytes]], body: bytes) -> bytes:
    """
    Return a page without its tokens, which differ from call to call even if no object changes.
    """
    starts = [0, *(element.end() for element in elements)]
    ends = [*(element.start() for element in elements), len(body)]
    return b"".join(body[start:end] for start, end in zip(starts, ends, strict=True))


def _check_echo(tokens: list[re.Match[bytes]], token: str | None) -> None:
    """
    Refuse a page that echoes a different token than requested; not all stores echo the token.
    """
    echo = next((element[2] for element in tokens if not element[1]), b"")
    said = unescaped(echo.decode()).strip()
    if said and token not in (said, unquote_plus(said)):
        raise listing_invalid("S3 returned a different page than the requested one")


def _check_order(pages: list[Page]) -> None:
    """
    Refuse pages out of order if the store's keys are in order within every page.

    S3 lists in the order of the keys' UTF-8 bytes:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ListingKeysUsingAPIs.html
    """
    if not all(page.is_sorted for page in pages):
        return
    ends = [page.ends for page in pages if page.ends]
    for (_, last), (first, _) in itertools.pairwise(ends):
        if first < last:
            raise listing_invalid(f"the key {first!r} is listed after {last!r}")


def _next_token(tokens: list[re.Match[bytes]], body: bytes) -> str | None:
    """
    Return the continuation token; None on the last page.
    """
    truncated = _TRUNCATED.search(body)
    if truncated is None:
        raise listing_invalid("it has no valid IsTruncated element")
    if truncated[1] == b"false":
        return None
    token = next((element[2] for element in tokens if element[1] and element[2]), None)
    if token is None:
        raise listing_invalid("it is truncated but has no continuation token")
    return unescaped(token.decode()).strip()


def _join(pages: list[Page]) -> Listing:
    """
    Merge pages; if a key is both a file and a folder, the file is skipped.
    """
    wanted: dict[str, Entry] = {}
    skipped: dict[str, str] = {}
    folders: set[str] = set()
    for page in pages:
        files = page.files
        if not wanted.keys().isdisjoint(files):
            twice = min(wanted.keys() & files.keys())
            raise listing_invalid(f"the key {files[twice].key!r} is listed twice")
        wanted |= files
        skipped.update(page.skipped)
        folders |= page.folders
    for path in wanted.keys() & folders:
        skipped[wanted.pop(path).key] = "file_and_folder"
    total = sum(page.fingerprint for page in pages)
    if "release" in skipped.values() and (pointer := wanted.pop(POINTER, None)):
        skipped[pointer.key] = "release"  # without releases, it is an ordinary file
        total -= fingerprint_of(pointer.path, pointer.etag, pointer.size_bytes)
    newest = max(page.newest for page in pages)
    kept = frozenset(path for page in pages for path in page.archived)
    return Listing(wanted, skipped, f"{total % (1 << 128):032x}"[:12], newest, kept)
