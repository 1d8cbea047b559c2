"""
One page of ListObjectsV2: its bytes → its files. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from s3_sync.keys import ARCHIVED_CLASSES, refusal_of
from s3_sync.s3.refusals import SourceError

# A valid page has two of these elements.
_TOKEN = re.compile(rb"<(Next)?ContinuationToken>([^<]*)</(?(1)Next)ContinuationToken>")
_TRUNCATED = re.compile(rb"<IsTruncated>\s*(true|false)\s*</IsTruncated>")
# Characters that XML cannot represent, but that some stores write without encoding. Replacing them
# loses one name instead of the whole page. https://www.w3.org/TR/xml/#charsets
_CONTROLS = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|"
    rb"&#(?:0*(?:[0-8]|1[1245-9]|2\d|3[01])|x0*(?:[0-8bcef]|1[\da-f]));",
    re.IGNORECASE,
)
_SIZE = re.compile(r"[0-9]{1,18}")
# The ETag becomes part of a request header.
_ETAG = re.compile(r"[!#-~]+")


class Entry(NamedTuple):
    """
    One object that should become a file; there may be very many.

    Args:
        path: Relative to the target.
        etag: Without quotes; empty if the listing has no usable ETag or no size.
    """

    path: str
    etag: str
    size_bytes: int


class Page(NamedTuple):
    """
    One parsed page.

    Args:
        keys: The number of all keys.
        filtered: The number of keys that the filters leave out.
        skipped: The reason why a key cannot become a file, by key.
        archived: The paths of archived objects.
        folders: All folders that contain files.
        fingerprint: The sum of the digests of objects that have, or may have, a file on disk; it
            does not depend on page breaks.
        newest: The latest modification time of an object, in S3's format (ISO 8601, UTC).
        ends: The first and the last key; None if there are no keys.
        is_sorted: Whether the keys are in the order of their UTF-8 bytes.
    """

    files: dict[str, Entry]
    keys: int
    filtered: int
    skipped: dict[str, str]
    archived: tuple[str, ...]
    folders: frozenset[str]
    fingerprint: int
    newest: str
    ends: tuple[str, str] | None
    is_sorted: bool


class PageReader(NamedTuple):
    """
    Reads pages of one prefix.

    Args:
        is_wanted: The include and exclude filter.
        target_bytes: Length of the target's own path.
    """

    prefix: str
    is_wanted: Callable[[str], bool]
    target_bytes: int

    def read(self, body: bytes) -> Page:
        """
        Parse a page.

        Raises:
            SourceError: The page contradicts itself.
        """
        root = _root(body)
        is_encoded = _text(root, "EncodingType") == "url"
        files: dict[str, Entry] = {}
        skipped: dict[str, str] = {}
        archived: list[str] = []
        keys: list[str] = []
        newest, filtered, fingerprint = "", 0, 0
        for contents in root.iter("Contents"):
            facts = {child.tag: child.text or "" for child in contents}
            key = _key(facts, is_encoded)
            keys.append(key)
            newest = max(newest, facts.get("LastModified", ""))
            if not key.startswith(self.prefix):
                raise listing_invalid(f"the key {key!r} is not under the prefix")
            path = key[len(self.prefix) :]
            if not path or path.endswith("/"):
                continue
            if not self.is_wanted(path):
                filtered += 1
            elif reason := refusal_of(path, self.target_bytes):
                skipped[key] = reason
            elif facts.get("StorageClass") in ARCHIVED_CLASSES:
                skipped[key] = "archived"
                archived.append(path)
                fingerprint += fingerprint_of(path, facts.get("ETag", ""), "archived")
            else:
                if path in files:
                    raise listing_invalid(f"the key {key!r} is listed twice")
                files[path] = entry = _entry(path, facts)
                fingerprint += fingerprint_of(*entry)
        _check_count(root, len(keys))
        return Page(
            files,
            len(keys),
            filtered,
            skipped,
            tuple(archived),
            frozenset(_folders(files)),
            fingerprint,
            newest,
            (keys[0], keys[-1]) if keys else None,
            keys == sorted(keys),
        )


def listing_invalid(message: str) -> SourceError:
    """
    Return the error for an invalid listing, which never changes anything.
    """
    return SourceError(
        "listing_invalid",
        f"the listing cannot be trusted: {message}",
        "Nothing was changed. If it persists, find out what alters S3's responses (a proxy?).",
    )


def fingerprint_of(path: str, etag: str, kind: int | str) -> int:
    """
    Return the digest of an object as a number.
    """
    text = f"{path}\0{etag}\0{kind}"
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest())


def digest_of(body: bytes) -> bytes:
    """
    Return a digest of a page without its tokens, which differ from call to call even if no object
    changes.
    """
    return hashlib.blake2b(_TOKEN.sub(b"", body), digest_size=16).digest()


def next_token(body: bytes, token: str | None) -> str | None:
    """
    Return the continuation token of a page; None on the last page.

    Args:
        token: The token with which the page was requested.

    Raises:
        SourceError: The page is another one than requested, or does not say whether it is the last.
    """
    tokens = list(_TOKEN.finditer(body))
    echo = _plain(next((found[2] for found in tokens if not found[1]), b""))
    if echo and token not in (echo, unquote_plus(echo)):  # not all stores echo the token
        raise listing_invalid("S3 returned a different page than the requested one")
    truncated = _TRUNCATED.search(body)
    if truncated is None:
        raise listing_invalid("it has no valid IsTruncated element")
    if truncated[1] == b"false":
        return None
    following = _plain(next((found[2] for found in tokens if found[1]), b""))
    if not following and b"<KeyCount>" not in body and b"<Marker" in body:
        raise SourceError(
            "listing_invalid",
            "the store answers ListObjectsV2 with a page of version 1, so the listing is cut off",
            "s3-sync needs a store with ListObjectsV2 (2016). Nothing was changed.",
        )
    if not following:
        raise listing_invalid("it is truncated but has no continuation token")
    return following


def names_in(body: bytes) -> Iterator[str]:
    """
    Yield the keys and the common prefixes of a page, as far as it can be read.
    """
    for text in re.findall(rb"<(?:Key|Prefix)>([^<]+)</", body):
        yield unquote_plus(_plain(text), errors="replace")


def _plain(text: bytes) -> str:
    return unescape(text.decode(errors="replace")).strip()


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


def _entry(path: str, facts: dict[str, str]) -> Entry:
    etag, size = facts.get("ETag", "").removeprefix("W/").strip('"'), facts.get("Size", "")
    if not _ETAG.fullmatch(etag) or not _SIZE.fullmatch(size):
        return Entry(path, "", 0)
    return Entry(path, etag, int(size))


def _folders(paths: dict[str, Entry]) -> set[str]:
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _check_count(root: ElementTree.Element, count: int) -> None:
    said = _text(root, "KeyCount")
    # KeyCount covers Contents and CommonPrefixes; s3-sync never requests the latter here.
    if said and said != str(count):
        raise listing_invalid(f"KeyCount is {said}, but the page has {count} keys")
