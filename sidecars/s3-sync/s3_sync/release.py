"""
The format of a release: pointer and manifest, from and to bytes. Pure.

Where they lie, what they say and who writes them when: docs/reference/release-format.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from json.encoder import encode_basestring_ascii as _quoted
from operator import add, le, mul
from typing import Any, NamedTuple

from s3_sync.keys import NAME_LIMIT_BYTES, PATH_LIMIT_BYTES, refusal_of

FORMAT = 1
POINTER_KEY = "current.json"
MANIFEST_FOLDER = "releases/"
BUNDLE_FOLDER = "bundles/"
PIN_FOLDER = "pins/"

# Limits of the reader, and so of the publisher.
POINTER_LIMIT_BYTES = 64 << 10
MANIFEST_LIMIT_BYTES = 64 << 20
FILES_LIMIT = 100_000
FILE_LIMIT_BYTES = 256 << 20
TOTAL_LIMIT_BYTES = 2 << 30
# What inflates to more than this many times its size is stored, not deflated.
RATIO_LIMIT = 100
HISTORY_LIMIT = 20
TEXT_LIMIT_CHARACTERS = 500

REVISION = re.compile(r"[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_MODES = {"0644", "0755"}
_BETWEEN = "/\0/"


class Invalid(ValueError):
    """
    A pointer or a manifest is not what the format says.
    """


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a release comes from, as far as its publisher knew; empty what it did not.

    Args:
        by: Who published: a person or a CI job.
    """

    by: str = ""
    commit: str = ""
    branch: str = ""
    author: str = ""
    message: str = ""
    ci_url: str = ""


class File(NamedTuple):
    """
    One file of a release, and where its data lies in the bundle.

    Args:
        offset: Of its first stored byte, behind the local header.
        stored_bytes: Equal to `size_bytes`: stored as it is; less: a raw deflate stream.
        mode: ``0644`` or ``0755``.
    """

    path: str
    offset: int
    stored_bytes: int
    size_bytes: int
    sha256: str
    mode: str

    @property
    def is_executable(self) -> bool:
        return self.mode == "0755"


@dataclass(frozen=True, slots=True)
class Pointer:
    """
    What is current: ``current.json``.

    Args:
        manifest_sha256: Of the manifest's bytes.
        published_at: When it became current.
        origin: Of this publish or roll-back.
        history: Revisions that were current before, newest first.
    """

    revision: str
    manifest_sha256: str
    manifest_bytes: int
    published_at: datetime
    origin: Origin
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    What a release consists of: ``releases/<revision>.json``; immutable.

    Args:
        created_at: When it was published for the first time.
        origin: Of that publish.
        files: By path, in the order of paths and of the bundle.
    """

    revision: str
    created_at: datetime
    origin: Origin
    bundle_sha256: str
    bundle_bytes: int
    files: Mapping[str, File] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


def manifest_key(revision: str) -> str:
    """
    Return the key of a manifest, relative to the prefix.
    """
    return f"{MANIFEST_FOLDER}{revision}.json"


def bundle_key(sha256: str) -> str:
    """
    Return the key of a bundle, relative to the prefix.
    """
    return f"{BUNDLE_FOLDER}{sha256}.zip"


def pin_key(revision: str) -> str:
    """
    Return the key of a pin, relative to the prefix.
    """
    return f"{PIN_FOLDER}{revision}"


def revision_of(files: Iterable[tuple[str, str, bool]]) -> str:
    """
    Return the name of a content.

    Args:
        files: Path, SHA-256 and whether it is executable, in the order of paths.
    """
    lines = [f"{sha256} {'x' if is_x else '-'} {path}\0" for path, sha256, is_x in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def serialise_pointer(pointer: Pointer) -> bytes:
    facts = {
        "format": FORMAT,
        "revision": pointer.revision,
        "manifest": {"sha256": pointer.manifest_sha256, "size_bytes": pointer.manifest_bytes},
        "published_at": _time_text(pointer.published_at),
        "published_by": pointer.origin.by,
        **_origin_facts(pointer.origin),
        "history": pointer.history[:HISTORY_LIMIT],
    }
    return json.dumps(facts, indent=2).encode() + b"\n"


def parse_pointer(data: bytes) -> Pointer:
    """
    Read a pointer.

    Raises:
        Invalid: It is none; the text says why.
    """
    facts = _facts(data, POINTER_LIMIT_BYTES)
    manifest = _get(facts, "manifest", dict)
    history = _get(facts, "history", list)
    if len(history) > HISTORY_LIMIT or not all(map(is_revision, history)):
        raise Invalid("history is not a list of at most 20 revisions")
    return Pointer(
        _revision(facts),
        _sha256(manifest, "manifest.sha256"),
        _size(manifest, "manifest.size_bytes", MANIFEST_LIMIT_BYTES),
        _time(facts, "published_at"),
        _origin(facts, "published_by"),
        tuple(history),
    )


def serialise_manifest(manifest: Manifest) -> bytes:
    """
    Return a manifest's bytes: JSON with one file a line.
    """
    head = {
        "format": FORMAT,
        "revision": manifest.revision,
        "created_at": _time_text(manifest.created_at),
        "created_by": manifest.origin.by,
        **_origin_facts(manifest.origin),
        "bundle": {"sha256": manifest.bundle_sha256, "size_bytes": manifest.bundle_bytes},
    }
    rows = ",\n".join(
        f"    [{_quoted(path)}, {offset}, {stored}, {size}, {_quoted(sha256)}, {_quoted(mode)}]"
        for path, offset, stored, size, sha256, mode in manifest.files.values()
    )
    text = json.dumps(head, indent=2)[: -len("\n}")]
    return f'{text},\n  "files": [\n{rows}\n  ]\n}}\n'.encode()


def parse_manifest(data: bytes, target_bytes: int = 0) -> Manifest:
    """
    Read a manifest; whatever it says can then be written below a target.

    Args:
        target_bytes: Length of the target's own path.

    Raises:
        Invalid: It is none, or names what must not be written; the text says why.
    """
    facts = _facts(data, MANIFEST_LIMIT_BYTES)
    bundle = _get(facts, "bundle", dict)
    bundle_bytes = _size(bundle, "bundle.size_bytes", 2 * TOTAL_LIMIT_BYTES)
    files = _files(_get(facts, "files", list), bundle_bytes, target_bytes)
    manifest = Manifest(
        _revision(facts),
        _time(facts, "created_at"),
        _origin(facts, "created_by"),
        _sha256(bundle, "bundle.sha256"),
        bundle_bytes,
        files,
    )
    content = revision_of((path, row[4], row[5] == "0755") for path, row in files.items())
    if content != manifest.revision:
        raise Invalid(f"its files are revision {content}, not {manifest.revision}")
    return manifest


def is_revision(found: object) -> bool:
    return isinstance(found, str) and REVISION.fullmatch(found) is not None


def _files(rows: list[Any], bundle_bytes: int, target_bytes: int) -> dict[str, File]:
    """
    Check the rows, column by column: 10,000 files cost milliseconds, not tens of them.
    """
    if not rows:
        raise Invalid("it names no file")
    if len(rows) > FILES_LIMIT:
        raise Invalid(f"it names {len(rows)} files; the limit is {FILES_LIMIT}")
    if set(map(type, rows)) != {list} or set(map(len, rows)) != {6}:
        raise Invalid("files are not rows of path, offset, stored bytes, size, sha256, mode")
    paths, offsets, stored, sizes, digests, modes = zip(*rows, strict=True)
    for texts in (paths, digests, modes):
        if set(map(type, texts)) != {str}:
            raise Invalid("a path, sha256 or mode is not a text")
    for numbers in (offsets, stored, sizes):
        if set(map(type, numbers)) != {int} or min(numbers) < 0:
            raise Invalid("an offset or size is not a whole number, 0 or more")
    if not _are_digests(digests):
        raise Invalid("a sha256 is not 64 hexadecimal digits")
    if not set(modes) <= _MODES:
        raise Invalid("a mode is not 0644 or 0755")
    _check_paths(paths, target_bytes)
    _check_sizes(stored, sizes)
    ends = [0, *map(add, offsets, stored)]
    if not all(map(le, ends, (*offsets, bundle_bytes))):
        raise Invalid("the data of files overlap, are out of order, or end beyond the bundle")
    # As File._make, which is slower by half.
    return dict(zip(paths, map(partial(tuple.__new__, File), rows), strict=True))


def _check_sizes(stored: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    if not all(map(le, stored, sizes)):
        raise Invalid("a file has more bytes stored than it has")
    if not all(map(le, sizes, map(mul, stored, [RATIO_LIMIT] * len(stored)))):
        raise Invalid(f"a file inflates to more than {RATIO_LIMIT} times what is stored")
    if max(sizes) > FILE_LIMIT_BYTES:
        raise Invalid(f"a file has {max(sizes)} bytes; the limit is {FILE_LIMIT_BYTES}")
    if sum(sizes) > TOTAL_LIMIT_BYTES:
        raise Invalid(f"its files have {sum(sizes)} bytes; the limit is {TOTAL_LIMIT_BYTES}")


def _check_paths(paths: tuple[str, ...], target_bytes: int) -> None:
    if not _are_plain(paths, target_bytes):
        for path in paths:
            if refusal := refusal_of(path, target_bytes):
                raise Invalid(f"the path {path!r:.300} cannot become a file: {refusal}")
    for path, after in pairwise(paths):
        if not path < after:
            raise Invalid(f"files are not sorted, each once: {after!r:.300}")
    folders = {path.rpartition("/")[0] for path in paths}
    while folders:
        if clashes := folders.intersection(paths):
            raise Invalid(f"{min(clashes)!r:.300} is both a file and a folder")
        folders = {folder.rpartition("/")[0] for folder in folders if folder}


def _are_plain(paths: tuple[str, ...], target_bytes: int) -> bool:
    """
    Whether one look at all paths shows that each can become a file; most releases are like that.
    """
    try:
        joined = f"/{_BETWEEN.join(paths)}/".encode()
    except UnicodeEncodeError:
        return False
    longest = max(map(len, joined.split(b"\0"))) - 2
    return (
        joined.count(b"\0") == len(paths) - 1
        and longest <= NAME_LIMIT_BYTES
        and longest + target_bytes < PATH_LIMIT_BYTES
        and not any(odd in joined for odd in (b"//", b"/./", b"/../", b"/.s3-sync/"))
    )


def _are_digests(texts: tuple[str, ...]) -> bool:
    joined = "".join(texts)
    try:
        return set(map(len, texts)) == {64} and bytes.fromhex(joined).hex() == joined
    except ValueError:
        return False


def _facts(data: bytes, limit_bytes: int) -> dict[str, Any]:
    if len(data) > limit_bytes:
        raise Invalid(f"it has {len(data)} bytes; the limit is {limit_bytes}")
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"it is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise Invalid("it is not a JSON object")
    if facts.get("format") != FORMAT or type(facts["format"]) is not int:
        raise Invalid(f"its format is {facts.get('format')!r:.50}; this s3-sync reads {FORMAT}")
    return facts


def _get(facts: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    found = facts.get(name.rpartition(".")[2])
    if type(found) is not kind:
        raise Invalid(f"{name} is missing, or not what it should be")
    return found


def _revision(facts: Mapping[str, Any]) -> str:
    revision: str = _get(facts, "revision", str)
    if not is_revision(revision):
        raise Invalid(f"{revision!r:.50} is not a revision")
    return revision


def _sha256(facts: Mapping[str, Any], name: str) -> str:
    digest: str = _get(facts, name, str)
    if not _SHA256.fullmatch(digest):
        raise Invalid(f"{name} is not 64 hexadecimal digits")
    return digest


def _size(facts: Mapping[str, Any], name: str, limit_bytes: int) -> int:
    size: int = _get(facts, name, int)
    if not 0 < size <= limit_bytes:
        raise Invalid(f"{name} is {size}; the limit is {limit_bytes}")
    return size


def _time(facts: Mapping[str, Any], name: str) -> datetime:
    try:
        return datetime.fromisoformat(_get(facts, name, str)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{name} is not a time") from error


def _time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _origin_facts(origin: Origin) -> dict[str, Any]:
    git = {
        "commit": origin.commit,
        "branch": origin.branch,
        "author": origin.author,
        "message": origin.message,
    }
    return {
        "git": {name: text[:TEXT_LIMIT_CHARACTERS] for name, text in git.items() if text},
        "ci_url": origin.ci_url[:TEXT_LIMIT_CHARACTERS],
    }


def _origin(facts: Mapping[str, Any], who: str) -> Origin:
    """
    Read where it comes from: for people only, so what is odd is left out, not refused.
    """
    git = facts.get("git")
    names = git if isinstance(git, dict) else {}

    def text(found: object) -> str:
        return found[:TEXT_LIMIT_CHARACTERS] if isinstance(found, str) else ""

    return Origin(
        text(facts.get(who)),
        text(names.get("commit")),
        text(names.get("branch")),
        text(names.get("author")),
        text(names.get("message")),
        text(facts.get("ci_url")),
    )
