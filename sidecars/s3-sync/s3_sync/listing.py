"""
The source ``listing``: every object under the prefix becomes a file.

Pages of ListObjectsV2 become the files of a state;
:meth:`ListingSource.confirm_deletions` asks a second time before a deletion;
:meth:`ListingSource.fetch` downloads the objects.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from s3_sync.download import Download, at_once
from s3_sync.names import (
    ARCHIVED_CLASSES,
    PATH_LIMIT_BYTES,
    POINTER,
    Content,
    Files,
    compile_filter,
    folders_of,
    revision_of,
    sha256_of,
    skip_reason_of,
)
from s3_sync.plan import State
from s3_sync.reasons import (
    Failures,
    ObjectError,
    ObjectMoved,
    S3Error,
    SourceError,
    concern_of,
)
from s3_sync.s3.client import S3Client
from s3_sync.settings import Settings
from s3_sync.tree import Fill
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import FULL_ADVICE, TargetError, free_bytes

# A bound of the code: each 1,000 keys take about 1 MiB.
KEYS_LIMIT = 200_000
# How many pages a listing may have that have no key.
EMPTY_PAGES = 1000
# A page of 1,000 keys has a quarter of it; a hostile one would take a gigabyte.
ELEMENTS_LIMIT = 100_000
# After this many failures in a row, the endpoint fails, not single objects; fewer are
# enough where nothing at all was read.
FAILURE_STREAK = 100
FAILURES_ALONE = 8
# An object that is not complete after this part of a cycle's time is slow.
SLOW_SHARE = 0.8

_TOKENS = (b"<ContinuationToken>", b"<NextContinuationToken>")
_NEXT_TOKEN = re.compile(rb"<NextContinuationToken>([^<]*)<")
# The ETag becomes part of a request header.
_VERSION = re.compile(r"[!#-~]+ [0-9]{1,18}")

log = get_logger("listing")


class ListingSource:
    """
    Lists a prefix, and downloads its objects; belongs to one thread and its event loop.

    A page whose bytes did not change since the last listing is not parsed again.
    """

    def __init__(self, settings: Settings, client: S3Client) -> None:
        self._settings = settings
        self._client = client
        self._is_wanted = compile_filter(settings.include, settings.exclude)
        # The pages of the last listing, in order, by their digests.
        self._pages: dict[str, Page] = {}
        self._state = State("", {})
        # Endpoint-like failures in a row, of objects that did not fail before.
        self._streak: list[S3Error] = []

    async def read(self, fence: Fence, seen: Mapping[str, int] = {}) -> State:
        """
        Return the listing; the same object while nothing changes.

        Raises:
            SourceError: S3 rejected the request, the response contradicts itself, or
                the prefix is empty.
            CycleAbandoned: The fence was revoked.
        """
        await self._client.ensure_credentials(fence)
        settings = self._settings
        pages = dict[str, Page]()
        target_bytes = len(settings.dest_path.encode())
        token: str | None = None
        keys = requests = 0
        while token is not None or not requests:
            body = await self._client.list_page(token)
            digest = sha256_of(_without_tokens(body))
            page = self._pages.get(digest) or read_page(
                body, settings.prefix, self._is_wanted, target_bytes
            )
            count = len(page.files) + len(page.skipped) + page.filtered
            if count and digest in pages:
                raise listing_invalid("S3 returned the same page twice")
            pages[digest] = page
            keys += count
            requests += 1
            # A store passes over many deleted keys in pages without one.
            if requests > EMPTY_PAGES + keys:
                raise listing_invalid(
                    f"{requests} pages have only {keys} keys, and are not the last"
                )
            if keys > KEYS_LIMIT:
                raise SourceError(
                    "too_many_keys",
                    f"the prefix contains more than {KEYS_LIMIT} keys, filtered or not",
                )
            token = next_token(body, page)
        if list(pages) != list(self._pages):
            self._state = join_pages(pages.values(), settings.prefix)
            self._pages = pages
        if not self._state.files and not settings.allow_empty:
            raise self._empty()
        return self._state

    async def confirm_deletions(self, paths: Collection[str], fence: Fence) -> set[str]:
        """
        Return the paths that a second listing lacks as well: a store or a proxy may
        lose a page once, and a deletion is hard to undo.
        """
        again = await self.read(fence)
        return {
            path for path in paths if path not in again.files and path not in again.kept
        }

    async def fetch(
        self,
        paths: Sequence[str],
        state: State,
        fill: Fill,
        before: Failures,
    ) -> None:
        """
        Download objects into a folder; the fill notes those that fail. Files on disk
        that have the content already are adopted.

        Args:
            before: Earlier errors by path: repeating one is no evidence against the
                endpoint.

        Raises:
            SidecarError: The endpoint fails as a whole.
            OSError: The volume fails as a whole.
            CycleAbandoned: The fence was revoked.
        """
        self._streak.clear()
        order = [*paths]
        random.shuffle(order)  # objects that fail often have similar names
        queue = iter(sorted(order, key=before.__contains__))

        async def bring() -> None:
            for path in queue:
                if time.monotonic() < fill.until:
                    await self._fetch(path, state.files, fill, before)
                elif path in before:
                    fill.failed[path] = before[path]
                else:
                    fill.unreached.add(path)

        await at_once(bring, len(paths))
        if len(self._streak) >= FAILURES_ALONE and not fill.has_read:
            raise self._streak[0]

    async def _fetch(
        self,
        path: str,
        files: Files,
        fill: Fill,
        before: Collection[str],
    ) -> None:
        """
        Bring one file, or note why that failed; what began late goes on in the next
        cycle.
        """
        key = f"{self._settings.prefix}{path}"
        began = time.monotonic()
        try:
            if not fill.tree.adopt(path, files[path], fill.fence):
                await self._download(path, key, files[path], fill)
                self._streak.clear()  # what is on disk is no answer of the endpoint
        except ObjectMoved:
            said = f"{key!r} changed or was deleted after it was listed, before it was read"
            fill.failed[path] = ObjectError("object_changing", said)
        except TargetError as error:
            fill.failed[path] = error
        except S3Error as error:
            kind = concern_of(error.reason)
            now = time.monotonic()
            if kind == "cycle":
                raise
            if now < fill.until:
                fill.failed[path] = error
                if kind == "request" and path not in before:
                    self._streak.append(error)
                if len(self._streak) >= FAILURE_STREAK:
                    raise
            elif now - began < SLOW_SHARE * self._settings.timeout_seconds:
                fill.unreached.add(path)
            else:
                said = f"{key!r} was not complete before the cycle's time was up"
                fill.failed[path] = ObjectError("object_slow", said)
        except OSError as error:
            fill.fail_on_disk(path, error)

    async def _download(self, path: str, key: str, file: Content, fill: Fill) -> None:
        """
        Download an object, verify it, and put it into place.

        Raises:
            ObjectMoved, S3Error: The object cannot be read.
            TargetError: A file of another owner is in the way, or the object does not
                fit.
            OSError: The volume fails.
        """
        folder = fill.tree
        if file.size_bytes > free_bytes(folder.fd):
            raise TargetError(
                "target_full",
                f"{folder.path} has no space for {path!r} ({file.size_bytes} bytes)",
                FULL_ADVICE,
            )
        must_match = self._settings.verify == "strict" or self._client.is_aws
        with closing(Download(key, file.size_bytes, folder.staging)) as download:
            headers = await self._client.get_object(
                key, file.etag, file.size_bytes, download, until=fill.until
            )
            fill.downloaded_bytes += download.size_bytes
            fill.has_read = True
            folder.put(
                path,
                file,
                download.finish(headers, file.etag, must_match=must_match),
                fill.fence,
            )
        encoding = (
            headers.get("content-encoding", "").replace("aws-chunked", "").strip(", ")
        )
        if encoding not in ("", "identity"):
            log.warning("object_encoded", key=key, encoding=encoding)

    def _empty(self) -> SourceError:
        """
        Return the error for a prefix without a file to sync, which counts what is
        there.
        """
        said = [
            f"{count} skipped ({reason})"
            for reason, count in sorted(Counter(self._state.skipped.values()).items())
        ]
        advice = (
            "Check KEY_PATH for a typo and its case; keys that begin with a slash are no files. For"
            " releases, set S3_SYNC_SOURCE=release. Nothing was deleted. If the folder should "
            "become empty, S3_SYNC_ALLOW_EMPTY=true deletes what is published."
        )
        filtered = sum(page.filtered for page in self._pages.values())
        if filtered:
            said.append(f"{filtered} left out by S3_SYNC_INCLUDE and S3_SYNC_EXCLUDE")
            advice = "Correct S3_SYNC_INCLUDE and S3_SYNC_EXCLUDE. Nothing was deleted."
        return SourceError(
            "source_empty",
            f"{self._settings.source} contains no files to sync: "
            + (", ".join(said) or "it has no keys, or only folders"),
            advice,
        )


# --- pages of ListObjectsV2: their bytes → the files of the source; pure


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
        filtered: The number of keys that the filters leave out.
        skipped: The reason why a key cannot become a file, by key.
        is_last: Whether no other page follows.
    """

    files: dict[str, Entry]
    filtered: int
    skipped: dict[str, str]
    is_last: bool


def read_page(
    body: bytes, prefix: str, is_wanted: Callable[[str], bool], target_bytes: int
) -> Page:
    """
    Parse a page.

    Args:
        is_wanted: The include and exclude filter.
        target_bytes: Length of the target's own path.

    Raises:
        SourceError: The page contradicts itself.
    """
    root = _root(body)
    is_encoded = root.findtext("EncodingType", "").strip() == "url"
    # Google's XML API leaves it out on the last page.
    truncated = root.findtext("IsTruncated", "false").strip()
    if truncated not in ("true", "false"):
        raise listing_invalid("it has no valid IsTruncated element")
    files: dict[str, Entry] = {}
    skipped: dict[str, str] = {}
    filtered = 0
    for contents in root.iter("Contents"):
        facts = {child.tag: child.text or "" for child in contents}
        key = facts.get("Key", "")
        # bytes that are not UTF-8 become lone surrogates, which no path may contain
        if is_encoded:
            key = unquote_plus(key, errors="surrogateescape")
        if not key or not key.startswith(prefix):
            raise listing_invalid(f"the key {key!r} is not under the prefix")
        path = key[len(prefix) :]
        if not path or path.endswith("/"):
            continue
        if not is_wanted(path):
            filtered += 1
        elif reason := skip_reason_of(path, target_bytes):
            skipped[key[:PATH_LIMIT_BYTES]] = reason  # a name too long has any length
        elif facts.get("StorageClass") in ARCHIVED_CLASSES:
            skipped[key] = "archived"
        elif path in files:
            raise listing_invalid(f"the key {key!r} is listed twice")
        else:
            etag = facts.get("ETag", "").removeprefix("W/").strip('"')
            size = facts.get("Size", "")
            is_usable = _VERSION.fullmatch(f"{etag} {size}")
            files[path] = (
                Entry(path, etag, int(size)) if is_usable else Entry(path, "", 0)
            )
    return Page(files, filtered, skipped, truncated == "false")


def join_pages(pages: Iterable[Page], prefix: str) -> State:
    """
    Merge pages into a state; if a key is both a file and a folder, the file is skipped.

    Raises:
        SourceError: A key is listed twice.
    """
    files: dict[str, Entry] = {}
    skipped: dict[str, str] = {}
    for page in pages:
        twice = files.keys() & page.files.keys()
        if twice:
            raise listing_invalid(f"the key {prefix + min(twice)!r} is listed twice")
        files |= page.files
        skipped |= page.skipped
    kept = {
        key.removeprefix(prefix) for key, why in skipped.items() if why == "archived"
    }
    for path in files.keys() & folders_of([*files, *kept]):
        del files[path]
        skipped[prefix + path] = "file_and_folder"
    if "release" in skipped.values() and POINTER in files:
        del files[POINTER]
        # without releases, it is an ordinary file
        skipped[prefix + POINTER] = "release"
    # What has, or may have, a file on disk; however the store orders and cuts it.
    return State(revision_of(files, kept), files, skipped, frozenset(kept))


def listing_invalid(message: str) -> SourceError:
    """
    Return the error for an invalid listing, which never changes anything.
    """
    return SourceError(
        "listing_invalid",
        f"the listing cannot be trusted: {message}",
    )


def next_token(body: bytes, page: Page) -> str | None:
    """
    Return the continuation token of a page; None on the last page.

    Raises:
        SourceError: There should be one.
    """
    if page.is_last:
        return None
    found = _NEXT_TOKEN.search(body)
    token = unescape(found[1].decode(errors="replace")).strip() if found else ""
    if not token:
        raise listing_invalid("it is truncated but has no continuation token")
    return token


def _without_tokens(body: bytes) -> bytearray:
    """
    Return a page without what differs from call to call, even if no object changes; a
    regular expression takes fifty times as long.
    """
    rest = bytearray(body)
    for tag in _TOKENS:
        at = rest.find(tag)
        if at >= 0:
            del rest[at : rest.find(b"<", at + 1)]
    return rest


def _root(body: bytes) -> ElementTree.Element:
    """
    Parse the document and remove the namespaces, which differ between servers.
    """
    # A DTD gives attributes to each element; in UTF-16, it would be spelled otherwise.
    is_odd = b"<!DOCTYPE" in body or b"\0" in body
    if is_odd or body.count(b"<") + body.count(b"=") > ELEMENTS_LIMIT:
        raise listing_invalid("it has a DTD, NULs, or too many elements or attributes")
    # Another encoding that the document declares may not even exist.
    parser = ElementTree.XMLParser(encoding="utf-8")  # noqa: S314 - see below
    try:
        root = ElementTree.fromstring(body, parser)  # noqa: S314
    except ElementTree.ParseError as error:
        raise listing_invalid(f"it is not XML: {error}") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != "ListBucketResult":
        raise listing_invalid(f"it is a {root.tag}, not a ListBucketResult")
    return root
