"""
One page of ListObjectsV2: its bytes → its items.

On a changed page, only new objects are parsed: a deletion shifts the objects of all later pages,
but does not change them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from struct import iter_unpack
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from s3_sync.keys import ARCHIVED_CLASSES, refusal_of
from s3_sync.listing.entries import Entry, listing_invalid

# Removing the namespace here is cheaper than removing it from each element.
_NAMESPACE = re.compile(rb"""\sxmlns=("[^"]*"|'[^']*')""")
_URL = re.compile(rb"<EncodingType>\s*url\s*<")
_START, _END = b"<Contents>", b"</Contents>"
# Characters that XML cannot represent, but that some stores write without encoding. Replacing them
# loses one name instead of the whole page. https://www.w3.org/TR/xml/#charsets
_CONTROLS = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|"
    rb"&#(?:0*(?:[0-8]|1[1245-9]|2\d|3[01])|x0*(?:[0-8bcef]|1[\da-f]));",
    re.IGNORECASE,
)
_MODIFIED = re.compile(rb"LastModified>([^<]+)</")
DIGEST_BYTES = 16

_SIZE = re.compile(r"[0-9]{1,18}")
# The ETag becomes part of a request header.
_ETAG = re.compile(r"[!#-~]+")


class NoFile(NamedTuple):
    """
    One object that does not become a file.

    Args:
        path: Relative to the target.
        why: The reason; empty for a folder marker and for a filtered key.
        etag: Only for an archived object, whose file may be on disk.
    """

    path: str
    why: str
    etag: str = ""


Item = Entry | NoFile
"""One object of a page; kept in memory for every object, so it is small."""


class Page(NamedTuple):
    """
    One parsed page.

    Args:
        items: One for each key.
        digests: The concatenated digests of the items' texts; empty if the items must be parsed
            again.
        folders: All folders that contain files.
        skipped: Reason by key.
        fingerprint: Sum of the digests of objects that have, or may have, a file on disk; does
            not depend on page breaks.
        newest: The latest modification time of an object, in S3's format.
        ends: The first and the last key; None if there are no keys.
        is_sorted: Whether the keys are in the order of their UTF-8 bytes.
    """

    items: tuple[Item, ...]
    digests: bytes
    folders: frozenset[str]
    skipped: dict[str, str]
    fingerprint: int
    newest: str
    ends: tuple[str, str] | None
    is_sorted: bool

    @property
    def files(self) -> dict[str, Entry]:
        """
        The objects that should become files, by path relative to the target.
        """
        return {item.path: item for item in self.items if isinstance(item, Entry)}

    @property
    def archived(self) -> Iterator[str]:
        """
        The paths of archived objects.
        """
        if "archived" in self.skipped.values():
            for item in self.items:
                if isinstance(item, NoFile) and item.why == "archived":
                    yield item.path

    @property
    def known(self) -> Iterator[tuple[bytes, Item]]:
        """
        The items that need no parsing when they appear again, by the digest of their text.
        """
        digests = chain.from_iterable(iter_unpack(f"{DIGEST_BYTES}s", self.digests))
        return zip(digests, self.items, strict=False)


class PageReader(NamedTuple):
    """
    Reads pages of one prefix.

    Args:
        is_wanted: The include and exclude filter.
        target_bytes: Length of the target's own path.
        known: Returns the items that need no parsing, by the digest of their text.
    """

    prefix: str
    is_wanted: Callable[[str], bool]
    target_bytes: int
    known: Callable[[], Mapping[bytes, Item]]

    def read(self, body: bytes) -> Page:
        """
        Parse a page.

        Raises:
            SourceError: The page contradicts itself.
        """
        digests, items = self._items(body)
        paths: set[str] = set()
        folders: set[str] = set()
        fingerprint = 0
        skipped: dict[str, str] = {}
        for item in items:
            if isinstance(item, NoFile):
                if item.why:
                    skipped[self.prefix + item.path] = item.why
                if item.why == "archived":
                    fingerprint += fingerprint_of(item.path, item.etag, item.why)
                continue
            if item.path in paths:
                raise listing_invalid(f"the key {item.key!r} is listed twice")
            paths.add(item.path)
            fingerprint += fingerprint_of(item.path, item.etag, item.size_bytes)
            folder = item.path
            while (slash := folder.rfind("/")) > 0 and folder[:slash] not in folders:
                folder = folder[:slash]
                folders.add(folder)
        keys = [self.prefix + item.path for item in items]
        return Page(
            tuple(items),
            b"".join(digests),
            frozenset(folders),
            skipped,
            fingerprint,
            max(_MODIFIED.findall(body), default=b"").decode(errors="replace"),
            (keys[0], keys[-1]) if keys else None,
            keys == sorted(keys),
        )

    def _items(self, body: bytes) -> tuple[list[bytes], list[Item]]:
        """
        Return all items of a page with the digests of their texts; parse only new items.
        """
        head, texts, tail = _split(body)
        salt = b"url" if _URL.search(head) or _URL.search(tail) else b""
        digests = [
            hashlib.blake2b(text, digest_size=DIGEST_BYTES, salt=salt).digest() for text in texts
        ]
        known = self.known()
        new = [text for text, digest in zip(texts, digests, strict=True) if digest not in known]
        root = _root(b"".join([_NAMESPACE.sub(b"", head, 1), *new, tail]))
        parsed = self._read_items(root)
        if len(parsed) != len(new):  # unusual markup: parse the whole page, and remember nothing
            root = _root(body)
            digests, texts, parsed = [], [], self._read_items(root)
        if texts:
            fresh = iter(parsed)
            parsed = [known.get(digest) or next(fresh) for digest in digests]
        _check_count(root, len(parsed))
        return digests, parsed

    def _read_items(self, root: ElementTree.Element) -> list[Item]:
        is_encoded = _text(root, "EncodingType") == "url"
        return [
            self._item({child.tag: child.text or "" for child in contents}, is_encoded)
            for contents in root.iter("Contents")
        ]

    def _item(self, facts: dict[str, str], is_encoded: bool) -> Item:
        key = _key(facts, is_encoded)
        if not key.startswith(self.prefix):
            raise listing_invalid(f"the key {key!r} is not under the prefix")
        path = key[len(self.prefix) :]
        if not path or path.endswith("/") or not self.is_wanted(path):
            return NoFile(path, "")
        reason = refusal_of(path, self.target_bytes)
        if reason:
            return NoFile(path, reason)
        etag, size = facts.get("ETag", "").removeprefix("W/").strip('"'), facts.get("Size", "")
        if facts.get("StorageClass") in ARCHIVED_CLASSES:
            return NoFile(path, "archived", etag)
        if not _ETAG.fullmatch(etag) or not _SIZE.fullmatch(size):
            etag, size = "", "0"
        return Entry(path, etag, int(size), self.prefix)


def _split(body: bytes) -> tuple[bytes, list[bytes], bytes]:
    """
    Return the text before the objects, the text of each object, and the text behind them.

    If a store writes something between them, or prefixes its elements, the head is the whole page.
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
    Parse the document and remove the namespaces, which differ between servers.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - expat limits entities, loads none
    except ElementTree.ParseError as error:
        if (plain := _CONTROLS.sub("\ufffd".encode(), body)) != body:
            return _root(plain)
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
    Return the key; bytes that are not UTF-8 become lone surrogates, which no path may contain.
    """
    raw = facts.get("Key")
    if not raw:
        raise listing_invalid(f"an entry has no key: {facts}")
    return unquote_plus(raw, errors="surrogateescape") if is_encoded else raw


def fingerprint_of(path: str, etag: str, kind: int | str) -> int:
    text = f"{path}\0{etag}\0{kind}"
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest())


def _check_count(root: ElementTree.Element, count: int) -> None:
    said = _text(root, "KeyCount")
    # KeyCount covers Contents and CommonPrefixes; s3-sync never requests the latter.
    if said and said != str(count):
        raise listing_invalid(f"KeyCount is {said}, but the page has {count} keys")
