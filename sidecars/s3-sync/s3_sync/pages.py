"""
Pages of ListObjectsV2: their bytes → the files of the source. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from s3_sync.keys import ARCHIVED_CLASSES, POINTER, refusal_of
from s3_sync.plan import State
from s3_sync.s3.refusals import SourceError

_TOKEN = re.compile(rb"<((?:Next)?ContinuationToken)>([^<]*)</\1>")
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
        fingerprint: The sum of the digests of objects that have, or may have, a file on disk; it
            does not depend on page breaks.
        is_last: Whether no other page follows.
    """

    files: dict[str, Entry]
    keys: int
    filtered: int
    skipped: dict[str, str]
    fingerprint: int
    is_last: bool


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
        is_encoded = root.findtext("EncodingType", "").strip() == "url"
        truncated = root.findtext("IsTruncated", "").strip()
        if truncated not in ("true", "false"):
            raise listing_invalid("it has no valid IsTruncated element")
        files: dict[str, Entry] = {}
        skipped: dict[str, str] = {}
        keys = filtered = fingerprint = 0
        for contents in root.iter("Contents"):
            keys += 1
            facts = {child.tag: child.text or "" for child in contents}
            key = _key(facts, is_encoded)
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
                fingerprint += _fingerprint_of(path, facts.get("ETag", ""), "archived")
            elif path in files:
                raise listing_invalid(f"the key {key!r} is listed twice")
            else:
                files[path] = entry = _entry(path, facts)
                fingerprint += _fingerprint_of(*entry)
        is_last = truncated == "false"
        return Page(files, keys, filtered, skipped, fingerprint, is_last)


def join(pages: Iterable[Page], prefix: str) -> State:
    """
    Merge pages; if a key is both a file and a folder, the file is skipped.

    Raises:
        SourceError: A key is listed twice.
    """
    files: dict[str, Entry] = {}
    skipped: dict[str, str] = {}
    fingerprint = 0
    for page in pages:
        if not files.keys().isdisjoint(page.files):
            twice = min(files.keys() & page.files.keys())
            raise listing_invalid(f"the key {prefix + twice!r} is listed twice")
        files |= page.files
        skipped |= page.skipped
        fingerprint += page.fingerprint
    for path in files.keys() & _folders(files):
        del files[path]
        skipped[prefix + path] = "file_and_folder"
    if "release" in skipped.values() and (pointer := files.pop(POINTER, None)):
        skipped[prefix + POINTER] = "release"  # without releases, it is an ordinary file
        fingerprint -= _fingerprint_of(*pointer)
    archived = (key.removeprefix(prefix) for key, why in skipped.items() if why == "archived")
    return State(f"{fingerprint % (1 << 128):032x}"[:12], files, skipped, frozenset(archived))


def listing_invalid(message: str) -> SourceError:
    """
    Return the error for an invalid listing, which never changes anything.
    """
    return SourceError(
        "listing_invalid",
        f"the listing cannot be trusted: {message}",
        "Nothing was changed. If it persists, find out what alters S3's responses (a proxy?).",
    )


def _fingerprint_of(path: str, etag: str, kind: int | str) -> int:
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


def next_token(body: bytes, page: Page) -> str | None:
    """
    Return the continuation token of a page; None on the last page.

    Raises:
        SourceError: There should be one.
    """
    if page.is_last:
        return None
    for name, text in _TOKEN.findall(body):
        if name.startswith(b"Next") and (token := _plain(text)):
            return token
    if b"<KeyCount>" not in body and b"<Marker" in body:
        raise SourceError(
            "listing_invalid",
            "the store answers ListObjectsV2 with a page of version 1, so the listing is cut off",
            "s3-sync needs a store with ListObjectsV2 (2016). Nothing was changed.",
        )
    raise listing_invalid("it is truncated but has no continuation token")


def names_in(body: bytes) -> list[str]:
    """
    Return the keys and the common prefixes of a page, as far as it can be read.
    """
    found = re.findall(rb"<(?:Key|Prefix)>([^<]+)</", body)
    return [unquote_plus(_plain(text), errors="replace") for text in found]


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
