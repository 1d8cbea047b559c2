"""
The format of a release: reads and writes manifest and pointer, and reads the bundle.
Pure.

See docs/reference/release-format.md. What is parsed may be hostile: the memory that it
takes is bounded by what a legal release of the largest size takes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from s3_sync.names import (
    EMPTY_SHA256,
    EXECUTABLE,
    POINTER,
    is_hex,
    is_revision,
    release_id_of,
    skip_reason_of,
)
from s3_sync.reasons import ObjectError

if TYPE_CHECKING:
    from s3_sync.release.signature import Keys

FORMAT = 3
POINTER_KEY = POINTER
MANIFEST_FOLDER = "releases/"
MANIFEST_SUFFIX = ".json.gz"
BUNDLE_FOLDER = "bundles/"
PIN_FOLDER = "pins/"

# Limits of the reader, and therefore of the publisher.
FILES_LIMIT = 100_000
FILE_LIMIT_BYTES = 256 << 20
TOTAL_LIMIT_BYTES = 2 << 30
MANIFEST_LIMIT_BYTES = 16 << 20
INFLATED_LIMIT_BYTES = 32 << 20
# A file has five commas and one brace; the rest is for names.
COMMAS_LIMIT = 6 * FILES_LIMIT
BRACES_LIMIT = FILES_LIMIT + FILES_LIMIT // 2
POINTER_LIMIT_BYTES = 64 << 10
HISTORY_LIMIT = 20
# The largest integer that every JSON parser keeps exactly.
SEQUENCE_LIMIT = (1 << 53) - 1
TEXT_LIMIT_CHARACTERS = 500
# No object of ours has more fields.
FIELDS_LIMIT = 100
# A file that would inflate to more than this many times its size is stored, not
# deflated.
RATIO_LIMIT = 100
# The most to inflate at a time.
BLOCK_BYTES = 1 << 20
# The size of a local file header in the bundle, without the file name (APPNOTE.TXT
# 4.3.7).
HEADER_BYTES = 30

# What an origin may tell people: who published (a person or a CI job), the commit and
# its branch, author and message, and the CI run.
ORIGIN = ("by", "commit", "branch", "author", "message", "ci_url")
# The last line of a signed pointer.
SIGNATURE = re.compile(rb'\n\{"signature": "([!#-\[\]-~]{1,8000})"\}\n\Z')
NEVER_PART = {".git", "__pycache__"}
MANIFEST_OF_AIRFLOW = ".airflow-bundle-manifest.json"

# The fields of a file in JSON, and their types.
_ROW = ("path", "sha256", "size", "executable", "stored")
_NAMES = set(_ROW)
_row_of = itemgetter(*_ROW)
_KINDS = (str, str, int, bool, int)
_CONTROL = re.compile(r"[\x00-\x1f]")
_GZIP = 31


class Invalid(Exception):
    """
    A pointer or a manifest violates the format.
    """

    reason = "release_invalid"


class Untrusted(Invalid):
    """
    A pointer is not signed with a trusted key; the text says why.
    """

    reason = "release_untrusted"


class File(NamedTuple):
    """
    One file of a release.

    Args:
        stored_bytes: If equal to `size_bytes`, stored unchanged; if less, a raw deflate
            stream.
        offset: Where its stored bytes begin in the bundle.
    """

    path: str
    sha256: str
    size_bytes: int
    is_executable: bool
    stored_bytes: int
    offset: int

    @property
    def etag(self) -> str:
        """
        A fingerprint of its content and its executable bit.
        """
        return self.sha256 + EXECUTABLE * self.is_executable

    @property
    def end(self) -> int:
        return self.offset + self.stored_bytes


class Manifest(NamedTuple):
    """
    The content of a release.

    Args:
        files: By path, sorted; also the order of the bundle.
        bundle_sha256: Of the whole bundle, and its name.
        origin: Where it comes from: the texts of :data:`ORIGIN` that its publisher
            knew.
    """

    revision: str
    files: Mapping[str, File]
    bundle_sha256: str
    bundle_bytes: int
    created_at: str
    origin: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


class Turn(NamedTuple):
    """
    A period during which a release was current.

    Args:
        sequence: Higher than that of the turn before.
        since: When it began, for people only.
    """

    revision: str
    sequence: int
    since: str

    def facts(self) -> dict[str, Any]:
        return {
            "version": self.revision,
            "sequence": self.sequence,
            "since": self.since,
        }


class Pointer(NamedTuple):
    """
    Which release is current.

    Args:
        origin: As in the manifest, of this publish, promotion or rollback.
        history: The turns before, newest first. A rollback drops those that it goes
            back over: a release that was left is not restored.
    """

    turn: Turn
    origin: Mapping[str, str]
    history: tuple[Turn, ...] = ()

    @property
    def revision(self) -> str:
        return self.turn.revision

    def turns(self) -> tuple[Turn, ...]:
        """
        Return the history for the next pointer.
        """
        return (self.turn, *self.history)[:HISTORY_LIMIT]


# --- keys


def manifest_key(revision: str) -> str:
    return f"{MANIFEST_FOLDER}{revision}{MANIFEST_SUFFIX}"


def bundle_key(sha256: str) -> str:
    return f"{BUNDLE_FOLDER}{sha256}.zip"


def pin_key(revision: str) -> str:
    return f"{PIN_FOLDER}{revision}"


def is_of_release(key: str) -> bool:
    """
    Whether a key is one that the format names: nothing else is listed or pruned.
    """
    return key == POINTER_KEY or skip_reason_of(key, 0) == "release"


# --- writing


def write_manifest(manifest: Manifest) -> bytes:
    """
    Return the bytes of a manifest; they depend on nothing but the manifest and zlib.
    """
    facts: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": 1,
        "version": manifest.revision,
        "created_at": manifest.created_at,
        "origin": _texts(manifest.origin),
        "bundle": {"sha256": manifest.bundle_sha256, "size": manifest.bundle_bytes},
        "files": [
            dict(zip(_ROW, file, strict=False)) for file in manifest.files.values()
        ],
    }
    return gzip.compress(json.dumps(facts, separators=(",", ":")).encode(), 6, mtime=0)


def write_pointer(pointer: Pointer) -> bytes:
    facts = {
        "format": FORMAT,
        **pointer.turn.facts(),
        "origin": _texts(pointer.origin),
        "history": [turn.facts() for turn in pointer.history],
    }
    return json.dumps(facts, indent=1).encode() + b"\n"


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- reading


def parse_manifest(
    data: bytes,
    revision: str,
    target_bytes: int = 0,
    known: Container[str] = (),
) -> Manifest:
    """
    Read a manifest; afterwards its files are safe to write below a target.

    Args:
        revision: The release that it must describe.
        target_bytes: The length of the target's own path.
        known: Paths that were read before, for the same target.

    Raises:
        Invalid: It is malformed, of another release, or contains a path that must not
            be written.
    """
    facts = _load(_inflate(data))
    _number(facts, "schema_version", 1)
    files = _read_files(_get(facts, "files", list), target_bytes, known)
    found = release_id_of(file[:4] for file in files.values())
    if not revision == found == _get(facts, "version", str):
        raise Invalid(f"its files belong to {found}")
    bundle = _get(facts, "bundle", dict)
    sha256 = _get(bundle, "sha256", str)
    size = _number(bundle, "size", 2 * TOTAL_LIMIT_BYTES)
    if not is_hex(sha256) or next(reversed(files.values())).end > size:
        raise Invalid("the bundle has no digest, or ends before its last file")
    manifest = Manifest(
        found,
        files,
        sha256,
        size,
        _text(facts, "created_at"),
        _texts(facts.get("origin")),
    )
    if manifest.size_bytes > TOTAL_LIMIT_BYTES:
        raise Invalid(
            f"its files have {manifest.size_bytes} bytes; limit {TOTAL_LIMIT_BYTES}"
        )
    return manifest


def _read_files(
    rows: Sequence[Any], target_bytes: int, known: Container[str]
) -> dict[str, File]:
    if not 0 < len(rows) <= FILES_LIMIT:
        raise Invalid(f"it does not list 1 to {FILES_LIMIT} files")
    files = {}
    end = 0
    for row in rows:
        if type(row) is not tuple or tuple(map(type, row)) != _KINDS:
            raise Invalid("a file lacks a field, or one has the wrong type")
        path, sha256, size, is_executable, stored = row
        if not is_hex(sha256):
            raise Invalid("sha256 of a file is not 64 hexadecimal digits")
        if not size and sha256 != EMPTY_SHA256:
            raise Invalid(f"{path!r:.300} is empty, but not its sha256")
        if not 0 <= stored <= size <= min(FILE_LIMIT_BYTES, stored * RATIO_LIMIT):
            raise Invalid(
                f"a file of {size!s:.24} bytes cannot have {stored!s:.24} stored bytes"
            )
        if path not in known and (problem := problem_of(path, target_bytes)):
            raise Invalid(f"the path {path!r:.300} cannot become a file: {problem}")
        offset = end + HEADER_BYTES + len(path.encode())
        end = offset + stored
        files[path] = File(path, sha256, size, is_executable, stored, offset)
    if len(files) < len(rows) or sorted(files) != list(files):
        raise Invalid("files are not sorted by path, or not unique")
    # A folder's files follow its own name, if "/" is the first of all characters.
    for path, after in pairwise(sorted(path.replace("/", "\0") for path in files)):
        if after.startswith(f"{path}\0"):
            raise Invalid(f"{path!r:.300} is both a file and a folder")
    return files


def read_pointer(
    data: bytes, keys: Keys | None, bucket: str, prefix: str
) -> tuple[Pointer, str]:
    """
    Verify and read a pointer; return it with the id of the key that signed it.

    Args:
        keys: The trusted keys; None if no signature is required: the id is then empty.

    Raises:
        Untrusted: Its signature is missing, invalid, or not from one of the keys.
        Invalid: It is not a pointer; the text says why.
    """
    found = SIGNATURE.search(data)
    body = data[: found.start() + 1] if found else data
    signature = found[1].decode() if found else ""
    try:
        signed_by = (
            keys.judge(body, bucket, prefix, signature) if keys is not None else ""
        )
    except ValueError as error:
        raise Untrusted(str(error)) from None
    if len(data) > POINTER_LIMIT_BYTES:
        raise Invalid(f"it has {len(data)} bytes; the limit is {POINTER_LIMIT_BYTES}")
    facts = _load(body.decode("latin-1"))
    history = tuple(map(_turn, _get(facts, "history", list)))
    pointer = Pointer(_turn(facts), _texts(facts.get("origin")), history)
    turns = [pointer.turn.sequence, *(turn.sequence for turn in history)]
    if len(history) > HISTORY_LIMIT or turns != sorted(set(turns), reverse=True):
        raise Invalid(
            f"history is not a list of at most {HISTORY_LIMIT} turns, newest first"
        )
    return pointer, signed_by


def is_left_out(path: str) -> bool:
    """
    Whether a file never belongs to a release, as in Airflow's own manifests.
    """
    parts = path.split("/")
    is_odd_file = parts[-1] == MANIFEST_OF_AIRFLOW or parts[-1].endswith(".pyc")
    return is_odd_file or not NEVER_PART.isdisjoint(parts)


def problem_of(path: str, target_bytes: int = 0) -> str:
    """
    Return why a path cannot become a file of a release; empty if it can.
    """
    if _CONTROL.search(path):
        return "control_character"
    return skip_reason_of(path, target_bytes) or (
        "left_out" if is_left_out(path) else ""
    )


def _inflate(data: bytes) -> str:
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise Invalid(f"it has {len(data)} bytes; the limit is {MANIFEST_LIMIT_BYTES}")
    inflater = zlib.decompressobj(_GZIP)
    try:
        text = inflater.decompress(data, INFLATED_LIMIT_BYTES + 1)
    except zlib.error as error:
        raise Invalid(f"it cannot be inflated: {error}") from error
    if len(text) > INFLATED_LIMIT_BYTES:
        raise Invalid(f"it inflates to more than {INFLATED_LIMIT_BYTES} bytes")
    if not inflater.eof or inflater.unused_data:
        raise Invalid("it does not end where it should")
    return text.decode("latin-1")


def _load(text: str) -> dict[str, Any]:
    """
    Parse JSON strictly: ASCII, no duplicate names in an object, no NaN, no more than is
    legal.
    """
    # one character beyond the BMP would take four bytes for each character
    if not text.isascii():
        raise Invalid("it contains characters that are not ASCII")
    if (
        text.count(",") + text.count("[") > COMMAS_LIMIT
        or text.count("{") > BRACES_LIMIT
    ):
        raise Invalid(
            f"it contains more than {COMMAS_LIMIT} commas and lists, or too many objects"
        )
    try:
        facts = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise Invalid(f"it is not JSON: {error}") from error
    if type(facts) is not dict:
        raise Invalid("it is not a JSON object")
    if facts.get("format") != FORMAT or type(facts["format"]) is not int:
        raise Invalid(
            f"its format is {facts.get('format')!r:.50}; this s3-sync reads {FORMAT}"
        )
    return facts


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """
    Return an object; that of a file as a tuple, which is half as large.
    """
    found = dict(pairs[:FIELDS_LIMIT])
    if len(found) < len(pairs):
        raise Invalid("an object has a duplicate name, or too many")
    return _row_of(found) if found.keys() >= _NAMES else found


def _refuse_constant(text: str) -> None:
    raise Invalid(f"{text} is not a number")


def _turn(facts: Any) -> Turn:
    if type(facts) is not dict:
        raise Invalid("a turn is not a JSON object")
    revision = _get(facts, "version", str)
    if not is_revision(revision):
        raise Invalid(f"{revision!r:.100} is not the id of a release")
    return Turn(
        revision, _number(facts, "sequence", SEQUENCE_LIMIT), _text(facts, "since")
    )


# What is only for people is ignored if it is malformed, not refused.


def _texts(origin: Any) -> dict[str, str]:
    names = ORIGIN if type(origin) is dict else ()
    return {name: text for name in names if (text := _text(origin, name))}


def _text(facts: Mapping[str, Any], name: str) -> str:
    found = facts.get(name)
    return found[:TEXT_LIMIT_CHARACTERS] if type(found) is str else ""


def _get(facts: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    found = facts.get(name)
    if type(found) is not kind:
        raise Invalid(f"{name} is missing or has the wrong type")
    return found


def _number(facts: Mapping[str, Any], name: str, limit: int) -> int:
    number: int = _get(facts, name, int)
    if not 1 <= number <= limit:
        raise Invalid(f"{name} is {number!s:.24}, not 1 to {limit}")
    return number


# --- the bundle


class IncomingContent:
    """
    Inflates and verifies one file of a bundle while its stored bytes arrive.

    Args:
        take: Receives the content, block by block; verified only when :meth:`finish`
            returns.
    """

    def __init__(self, file: File, take: Callable[[bytes], object]) -> None:
        self._file = file
        self._give = take
        is_deflated = file.stored_bytes < file.size_bytes
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if is_deflated else None
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write(self, piece: bytes) -> None:
        """
        Process the next stored bytes.

        Raises:
            ObjectError: The file does not match the manifest.
        """
        if self._inflater is None:
            self._take(piece)
            return
        try:
            while piece:
                self._take(self._inflater.decompress(piece, BLOCK_BYTES))
                if self._inflater.unused_data:  # zlib would collect all that follows
                    raise self._corrupt("its data goes on after its end")
                piece = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise self._corrupt(f"it cannot be inflated: {error}") from None

    def finish(self) -> None:
        """
        Verify that the file is complete, and nothing follows it.

        Raises:
            ObjectError: The file does not match the manifest.
        """
        if self._inflater is not None:
            self._take(self._inflater.flush())
            if not self._inflater.eof:
                raise self._corrupt("its data has no end")
        if self._size_bytes != self._file.size_bytes:
            raise self._corrupt(
                f"it has {self._size_bytes} bytes, not {self._file.size_bytes}"
            )
        found = self._digest.hexdigest()
        if found != self._file.sha256:
            raise self._corrupt(f"its SHA-256 is {found}, not {self._file.sha256}")

    def _take(self, block: bytes) -> None:
        self._size_bytes += len(block)
        if self._size_bytes > self._file.size_bytes:
            raise self._corrupt(f"it has more than {self._file.size_bytes} bytes")
        self._digest.update(block)
        self._give(block)

    def _corrupt(self, message: str) -> ObjectError:
        return ObjectError(
            "bundle_corrupt", f"{self._file.path!r} in the bundle is corrupt: {message}"
        )
