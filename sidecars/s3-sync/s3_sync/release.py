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
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from s3_sync.rows import FILES_LIMIT, TOTAL_LIMIT_BYTES, File, Invalid, read_rows

FORMAT = 1
POINTER_KEY = "current.json"
MANIFEST_FOLDER = "releases/"
BUNDLE_FOLDER = "bundles/"
PIN_FOLDER = "pins/"

# Limits of the reader, and so of the publisher; those of files are in rows.py.
POINTER_LIMIT_BYTES = 64 << 10
MANIFEST_LIMIT_BYTES = 64 << 20
# All rows have a third of that; the rest is for names.
MARKS_LIMIT = 20 * FILES_LIMIT
# A manifest says all but its files in so many bytes.
HEAD_LIMIT_BYTES = 40 << 10
HISTORY_LIMIT = 20
TEXT_LIMIT_CHARACTERS = 500

REVISION = re.compile(r"[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILES = '\n  "files": '


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


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What the head of a manifest says, for tables of releases; nothing of it is verified.
    """

    revision: str
    created_at: datetime
    origin: Origin
    bundle_sha256: str
    files: int
    size_bytes: int


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
        "published_by": pointer.origin.by[:TEXT_LIMIT_CHARACTERS],
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
        "created_by": manifest.origin.by[:TEXT_LIMIT_CHARACTERS],
        **_origin_facts(manifest.origin),
        "bundle": {"sha256": manifest.bundle_sha256, "size_bytes": manifest.bundle_bytes},
        "totals": {"files": len(manifest.files), "size_bytes": manifest.size_bytes},
    }
    rows = ",\n".join(
        f"    [{_quoted(path)}, {offset}, {stored}, {size}, {_quoted(sha256)}, {_quoted(mode)}]"
        for path, offset, stored, size, sha256, mode in manifest.files.values()
    )
    text = json.dumps(head, indent=2)[: -len("\n}")]
    return f"{text},{_FILES}[\n{rows}\n  ]\n}}\n".encode()


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
    files = read_rows(_get(facts, "files", list), bundle_bytes, target_bytes)
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


def parse_summary(head: bytes) -> Summary:
    """
    Read the first bytes of a manifest that :func:`serialise_manifest` wrote.

    Raises:
        Invalid: They are none.
    """
    before, found, _ = head.partition(_FILES.encode())
    facts = _facts(before.rstrip(b",") + b"}" if found else head, MANIFEST_LIMIT_BYTES)
    totals = _get(facts, "totals", dict)
    return Summary(
        _revision(facts),
        _time(facts, "created_at"),
        _origin(facts, "created_by"),
        _sha256(_get(facts, "bundle", dict), "bundle.sha256"),
        _get(totals, "totals.files", int),
        _get(totals, "totals.size_bytes", int),
    )


def is_revision(found: object) -> bool:
    return isinstance(found, str) and REVISION.fullmatch(found) is not None


def check_bulk(data: bytes, limit_bytes: int) -> None:
    """
    Raise unless so much JSON can be parsed in little memory: an empty list takes two bytes of
    JSON, and 64 of memory.

    Raises:
        Invalid: It is too long, or would become too many objects.
    """
    if len(data) > limit_bytes:
        raise Invalid(f"it has {len(data)} bytes; the limit is {limit_bytes}")
    if len(data) > MARKS_LIMIT and sum(map(data.count, (b"[", b"{", b","))) > MARKS_LIMIT:
        raise Invalid(f"it has more than {MARKS_LIMIT} brackets and commas")


def _facts(data: bytes, limit_bytes: int) -> dict[str, Any]:
    check_bulk(data, limit_bytes)
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
