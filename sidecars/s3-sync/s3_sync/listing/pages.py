"""
What is under the prefix: pages of ListObjectsV2 → one listing.

A page whose bytes did not change since the last cycle is not parsed again; on a quiet bucket a
poll costs a digest a page. On a page that did change, only what is new of it is parsed: a deletion
shifts the objects of all pages behind it, and they are still the same.
"""

from __future__ import annotations

import hashlib
import html
import itertools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from s3_sync.keys import ARCHIVED_CLASSES, refusal_of
from s3_sync.s3.refusals import SourceError

_TOKEN = b"ContinuationToken>"
_ECHO = re.compile(rb"<ContinuationToken>([^<]*)</ContinuationToken>")
# They differ from call to call and say nothing about the objects.
_TOKENS = re.compile(rb"<(?:Next)?ContinuationToken>[^<]*</(?:Next)?ContinuationToken>")

# Dropping it here is cheaper than from each element.
_NAMESPACE = re.compile(rb"""\sxmlns=("[^"]*"|'[^']*')""")
_URL = re.compile(rb"<EncodingType>\s*url\s*<")
_START, _END = b"<Contents>", b"</Contents>"

# It goes into a header of ours.
_ETAG = re.compile(r"[!#-~]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One object that should become a file: its key, ETag without quotes, size in bytes.
    """

    key: str
    etag: str
    size_bytes: int


class Item(NamedTuple):
    """
    What a page says of one object; made once for each, so of the cheapest kind.

    Args:
        path: Relative to the target.
        entry: None for what is no file: folder markers, what a filter leaves out, what is skipped.
        skipped: Why it cannot become a file; empty where it can.
        fingerprint: A digest of path, ETag and size, as a number; 0 without an entry.
        modified: When it was written, as S3 writes it.
    """

    key: str
    path: str
    entry: Entry | None
    skipped: str
    fingerprint: int
    modified: str


@dataclass(frozen=True, slots=True)
class Page:
    """
    One parsed page.

    Args:
        items: By the digest of their text.
        entries: By path relative to the target.
        folders: All folders that the entries lie in.
        skipped: Reason by key.
        fingerprint: Sum of the digests of the entries; does not depend on where pages break.
        newest: The latest time at which an object was written, as S3 writes it.
        ends: The first and the last key; None where there is none.
        is_sorted: Whether the keys are in the order of their UTF-8 bytes.
    """

    items: dict[bytes, Item]
    entries: dict[str, Entry]
    folders: frozenset[str]
    skipped: dict[str, str]
    fingerprint: int
    newest: str
    ends: tuple[str, str] | None
    is_sorted: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """
    The whole prefix at one moment: what should be on disk, what cannot be, and its name.

    Args:
        newest: When the newest object was written, as S3 writes it (ISO 8601, UTC).
    """

    wanted: dict[str, Entry]
    skipped: dict[str, str]
    revision: str
    newest: str = ""

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
        "Nothing was changed. If it persists, something between here and S3 alters answers.",
    )


class Lister:
    """
    Reads listings, and remembers the last one.

    Args:
        fetch_page: From a continuation token (None for the first page) to its bytes.
        is_wanted: The include and exclude filter.
        target_bytes: Length of the target's own path.
    """

    def __init__(
        self,
        fetch_page: Callable[[str | None], Awaitable[bytes]],
        prefix: str,
        is_wanted: Callable[[str], bool],
        target_bytes: int,
    ) -> None:
        self._fetch_page = fetch_page
        self._prefix = prefix
        self._is_wanted = is_wanted
        self._target_bytes = target_bytes
        self._pages: dict[bytes, Page] = {}
        self._digests: list[bytes] = []
        self._gathered: dict[bytes, Item] | None = None
        self._listing: Listing | None = None

    async def read(self) -> Listing:
        """
        Return the listing; the very same object while nothing changes.

        Raises:
            SourceError: S3 refused, or the answer contradicts itself.
        """
        self._gathered = None
        pages: dict[bytes, Page] = {}
        digests: list[bytes] = []
        token: str | None = None
        seen: set[str] = set()
        while True:
            body = await self._fetch_page(token)
            _check_echo(body, token)
            digest = hashlib.blake2b(_without_tokens(body), digest_size=16).digest()
            page = self._pages.get(digest) or pages.get(digest)
            pages[digest] = page or self._parse(body)
            digests.append(digest)
            token = _next_token(body)
            if token is None:
                break
            if token in seen:
                raise listing_invalid("a continuation token came twice")
            seen.add(token)
        if self._listing is None or digests != self._digests:
            ordered = [pages[digest] for digest in digests]
            _check_order(ordered)
            self._listing = _join(ordered)
            self._pages, self._digests = pages, digests
        self._gathered = None
        return self._listing

    def _parse(self, body: bytes) -> Page:
        digests, items = self._items(body)
        entries: dict[str, Entry] = {}
        folders: set[str] = set()
        for item in items:
            if item.entry is None:
                continue
            path = item.path
            if path in entries:
                raise listing_invalid(f"the key {item.key!r} came twice")
            entries[path] = item.entry
            while (slash := path.rfind("/")) > 0 and path[:slash] not in folders:
                path = path[:slash]
                folders.add(path)
        keys = [item.key for item in items]
        return Page(
            dict(zip(digests, items, strict=bool(digests))),
            entries,
            frozenset(folders),
            {item.key: item.skipped for item in items if item.skipped},
            sum(item.fingerprint for item in items),
            max((item.modified for item in items), default=""),
            (keys[0], keys[-1]) if keys else None,
            keys == sorted(keys),
        )

    def _items(self, body: bytes) -> tuple[list[bytes], list[Item]]:
        """
        Return all items of a page with the digests of their texts; parse those that are new.
        """
        head, texts, tail = _split(body)
        salt = b"url" if _URL.search(head) or _URL.search(tail) else b""
        digests = [hashlib.blake2b(text, digest_size=16, salt=salt).digest() for text in texts]
        known = self._known()
        new = [text for text, digest in zip(texts, digests, strict=True) if digest not in known]
        root = _root(b"".join([_NAMESPACE.sub(b"", head, 1), *new, tail]))
        parsed = self._read_items(root)
        if len(parsed) != len(new):  # an object in another dress: by itself, and not remembered
            root = _root(body)
            digests, texts, parsed = [], [], self._read_items(root)
        if texts:
            fresh = iter(parsed)
            parsed = [known.get(digest) or next(fresh) for digest in digests]
        _check_count(root, len(parsed))
        return digests, parsed

    def _known(self) -> dict[bytes, Item]:
        """
        Return all items of the last listing; gathered once a reading, and only if a page changed.
        """
        if self._gathered is None:
            self._gathered = {}
            for page in self._pages.values():
                self._gathered.update(page.items)
        return self._gathered

    def _read_items(self, root: ElementTree.Element) -> list[Item]:
        is_encoded = _text(root, "EncodingType") == "url"
        return [
            self._item({child.tag: child.text or "" for child in contents}, is_encoded)
            for contents in root.iter("Contents")
        ]

    def _item(self, facts: dict[str, str], is_encoded: bool) -> Item:
        key = _key(facts, is_encoded)
        modified = facts.get("LastModified", "")
        if not key.startswith(self._prefix):
            raise listing_invalid(f"the key {key!r} is not under the prefix")
        path = key[len(self._prefix) :]
        if not path or path.endswith("/") or not self._is_wanted(path):
            return Item(key, path, None, "", 0, modified)
        reason = refusal_of(path, self._target_bytes) or ""
        if not reason and facts.get("StorageClass") in ARCHIVED_CLASSES:
            reason = "archived"
        if reason:
            return Item(key, path, None, reason, 0, modified)
        entry = _entry(key, facts)
        return Item(key, path, entry, "", _fingerprint(path, entry), modified)


def _without_tokens(body: bytes) -> bytes:
    """
    Return a page without its tokens; finding that there are none is almost free.
    """
    return _TOKENS.sub(b"", body) if _TOKEN in body else body


def _split(body: bytes) -> tuple[bytes, list[bytes], bytes]:
    """
    Return what is before the objects, the text of each, and what is behind them.

    Where a store puts something in between, or prefixes its elements, there are no texts, and the
    head is the whole.
    """
    head, *pieces = body.split(_START)
    tail = b""
    texts = []
    for number, piece in enumerate(pieces, 1):
        text, end, rest = piece.partition(_END)
        if not end or (number < len(pieces) and rest.strip()):
            return body, [], b""
        texts.append(_START + text + _END)
        tail = rest
    return head, texts, tail


def _root(body: bytes) -> ElementTree.Element:
    """
    Parse the document and drop the namespaces, which differ between servers.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - expat limits entities, loads none
    except ElementTree.ParseError as error:
        raise listing_invalid(f"it is not XML: {error}") from None
    if root.tag.startswith("{"):
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
    if root.tag != "ListBucketResult":
        raise listing_invalid(f"it is a {root.tag}, not a ListBucketResult")
    return root


def _text(root: ElementTree.Element, tag: str) -> str:
    return (root.findtext(tag) or "").strip()


def _key(facts: dict[str, str], is_encoded: bool) -> str:
    """
    Return the key; what is not UTF-8 becomes a lone surrogate, which no path may have.
    """
    raw = facts.get("Key")
    if not raw:
        raise listing_invalid(f"an entry without key: {facts}")
    return unquote_plus(raw, errors="surrogateescape") if is_encoded else raw


def _entry(key: str, facts: dict[str, str]) -> Entry:
    etag, size = facts.get("ETag", "").removeprefix("W/").strip('"'), facts.get("Size", "")
    if not _ETAG.fullmatch(etag) or not size.isdecimal():
        raise listing_invalid(f"{key!r} has the ETag {etag!r} and the size {size!r}")
    return Entry(key, etag, int(size))


def _fingerprint(path: str, entry: Entry) -> int:
    text = f"{path}\0{entry.etag}\0{entry.size_bytes}"
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest())


def _check_count(root: ElementTree.Element, count: int) -> None:
    said = _text(root, "KeyCount")
    # KeyCount covers Contents and CommonPrefixes; we never ask for the latter.
    if said and said != str(count):
        raise listing_invalid(f"KeyCount says {said}, but {count} keys came")


def _check_echo(body: bytes, token: str | None) -> None:
    """
    Refuse a page that was asked for by another token; S3 repeats the token, not all stores do.
    """
    echo = _ECHO.search(body) if _TOKEN in body else None
    said = html.unescape(echo[1].decode()).strip() if echo else ""
    if said and token not in (said, unquote_plus(said)):
        raise listing_invalid("another page came than was asked for")


def _check_order(pages: list[Page]) -> None:
    """
    Refuse pages in disorder, from a store whose keys are in order within every page.

    S3 lists in the order of the keys' UTF-8 bytes:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ListingKeysUsingAPIs.html
    """
    if not all(page.is_sorted for page in pages):
        return
    ends = [page.ends for page in pages if page.ends]
    for (_, last), (first, _) in itertools.pairwise(ends):
        if first < last:
            raise listing_invalid(f"the key {first!r} came after {last!r}")


def _next_token(body: bytes) -> str | None:
    """
    Return the continuation token, None on the last page.

    Found without a parser, because unchanged pages are not parsed; the elements around the keys
    never contain text with ``<``.
    """
    truncated = re.search(rb"<IsTruncated>\s*(true|false)\s*</IsTruncated>", body)
    if truncated is None:
        raise listing_invalid("it does not say whether it is whole")
    if truncated[1] == b"false":
        return None
    match = re.search(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>", body)
    if match is None:
        raise listing_invalid("it is truncated, but without a continuation token")
    return html.unescape(match[1].decode()).strip()


def _join(pages: list[Page]) -> Listing:
    """
    Merge pages; a key that is both a file and a folder is skipped, the folder wins.
    """
    wanted: dict[str, Entry] = {}
    skipped: dict[str, str] = {}
    folders: set[str] = set()
    for page in pages:
        wanted.update(page.entries)
        skipped.update(page.skipped)
        folders |= page.folders
    if len(wanted) != sum(len(page.entries) for page in pages):
        raise listing_invalid("a key came twice")
    for path in wanted.keys() & folders:
        skipped[wanted.pop(path).key] = "file_and_folder"
    total = sum(page.fingerprint for page in pages) % (1 << 128)
    newest = max(page.newest for page in pages)
    return Listing(wanted, skipped, f"{total:032x}"[:12], newest)
