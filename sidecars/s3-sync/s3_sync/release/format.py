"""
The format of a release: parses and writes manifest and pointer. Pure.

See docs/reference/release-format.md. What is parsed may be hostile: the memory that it takes is
bounded by what a legal release of the largest size takes.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from s3_sync.digest import EXECUTABLE, is_revision, revision_of
from s3_sync.keys import PATH_LIMIT_BYTES, refusal_of
from sidecar_runtime.errors import counted

if TYPE_CHECKING:
    from s3_sync.signature import Keys

FORMAT = 3
POINTER_KEY = "current.json"
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
PLACE_LIMIT_CHARACTERS = 90
# No object of ours has more fields.
FIELDS_LIMIT = 100
# A file that would inflate to more than this many times its size is stored, not deflated.
RATIO_LIMIT = 100
# The size of a local file header in the bundle, without the file name (APPNOTE.TXT 4.3.7).
HEADER_BYTES = 30

NEVER_PART = {".git", "__pycache__"}
MANIFEST_OF_AIRFLOW = ".airflow-bundle-manifest.json"

_SHA256 = re.compile(r"[0-9a-f]{64}")
# The fields of a file in JSON, and their types.
_ROW = ("path", "sha256", "size", "executable", "stored")
_KINDS = (str, str, int, bool, int)
_CONTROL = re.compile(r"[\x00-\x1f]")
# Most paths, which need no closer look: too short for a name of ours.
_PLAIN = re.compile(r"(?!.*(?:__pycache__|\.pyc))\w[\w.-]{,59}(?:/\w[\w.-]{,59}){,9}", re.ASCII)
_LINE = re.compile(rb'\n\{"signature": "([!#-\[\]-~]{1,8000})"\}\n\Z')
_GZIP = 31


class Invalid(ValueError):
    """
    A pointer or a manifest violates the format.
    """


class Untrusted(Exception):
    """
    A pointer is not signed with a trusted key; the text says why.
    """


class File(NamedTuple):
    """
    One file of a release.

    Args:
        stored_bytes: If equal to `size_bytes`, stored unchanged; if less, a raw deflate stream.
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
        return f"{self.sha256}{EXECUTABLE}" if self.is_executable else self.sha256

    @property
    def end(self) -> int:
        return self.offset + self.stored_bytes


class Origin(NamedTuple):
    """
    Where a release comes from; fields that its publisher did not know are empty.

    Args:
        by: Who published: a person or a CI job.
    """

    by: str = ""
    commit: str = ""
    branch: str = ""
    author: str = ""
    message: str = ""
    ci_url: str = ""

    def facts(self) -> dict[str, str]:
        found = self._asdict().items()
        return {name: text[:TEXT_LIMIT_CHARACTERS] for name, text in found if text}


class Checked(NamedTuple):
    """
    What a real Airflow found in the files before they were published.

    Args:
        version: Of that Airflow.
        dag_ids: The ids of all DAGs that it loaded, sorted.
        files_not_loaded: How many files were not loaded, with errors that were allowed.
    """

    version: str
    checked_at: str
    dag_ids: Sequence[str] = ()
    files_not_loaded: int = 0

    def __str__(self) -> str:
        dags = counted(len(self.dag_ids), "DAG")
        if self.files_not_loaded:
            dags += f", {counted(self.files_not_loaded, 'file')} not loaded"
        return f"Airflow {self.version} at {self.checked_at}: {dags}"


class Manifest(NamedTuple):
    """
    The content of a release.

    Args:
        files: By path, sorted; also the order of the bundle.
        bundle_sha256: Of the whole bundle, and its name.
    """

    revision: str
    files: Mapping[str, File]
    bundle_sha256: str
    bundle_bytes: int
    created_at: str
    origin: Origin = Origin()
    checked: Checked | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


class Turn(NamedTuple):
    """
    A period during which a release was current.

    Args:
        sequence: Higher than that of the turn before.
        since: When it began, for people only.
        restores: After a rollback, the sequence of the restored turn; 0 after a publish.
        promoted_from: The place from which it was promoted, for people only; or empty.
    """

    revision: str
    sequence: int
    since: str
    restores: int = 0
    promoted_from: str = ""

    def facts(self) -> dict[str, Any]:
        names = ("version", "sequence", "since", "restores", "promoted_from")
        return {name: found for name, found in zip(names, self, strict=True) if found}


class Pointer(NamedTuple):
    """
    Which release is current.

    Args:
        origin: The origin of this publish, promotion or rollback.
        history: Earlier turns, newest first.
    """

    turn: Turn
    origin: Origin = Origin()
    history: tuple[Turn, ...] = ()

    @property
    def revision(self) -> str:
        return self.turn.revision

    def earlier(self) -> list[Turn]:
        """
        Return the turns before the current release was published, newest first. After a rollback,
        they continue from the restored turn: a release that was just left is not restored.
        """
        by_sequence = {one.sequence: one for one in self.history}
        turn: Turn | None = self.turn
        sequence = self.turn.sequence
        while turn is not None:
            sequence = turn.restores or turn.sequence
            turn = by_sequence.get(turn.restores)
        return [one for one in self.history if one.sequence < sequence]

    @property
    def previous(self) -> Turn | None:
        """
        The turn to which a rollback returns, if any.
        """
        return next(iter(self.earlier()), None)

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
        "origin": manifest.origin.facts(),
        **({"airflow": manifest.checked._asdict()} if manifest.checked else {}),
        "bundle": {"sha256": manifest.bundle_sha256, "size": manifest.bundle_bytes},
        "files": [dict(zip(_ROW, file, strict=False)) for file in manifest.files.values()],
    }
    deflater = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    text = json.dumps(facts, separators=(",", ":")).encode()
    return deflater.compress(text) + deflater.flush()


def write_pointer(pointer: Pointer) -> bytes:
    facts = {
        "format": FORMAT,
        **pointer.turn.facts(),
        "origin": pointer.origin.facts(),
        "history": [turn.facts() for turn in pointer.history[:HISTORY_LIMIT]],
    }
    return json.dumps(facts, indent=1).encode() + b"\n"


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- reading


def parse_manifest(data: bytes, revision: str, target_bytes: int = 0) -> Manifest:
    """
    Read a manifest; afterwards its files are safe to write below a target.

    Args:
        revision: The release that it must describe.
        target_bytes: The length of the target's own path.

    Raises:
        Invalid: It is malformed, of another release, or contains a path that must not be written.
    """
    facts = _load(_inflate(data))
    if facts.get("schema_version") != 1:
        raise Invalid(f"its schema_version is {facts.get('schema_version')!r:.50}, not 1")
    files = _read_files(_get(facts, "files", list), target_bytes)
    found = revision_of(file[:4] for file in files.values())
    if not revision == found == _get(facts, "version", str):
        raise Invalid(f"its files belong to {found}")
    bundle = _get(facts, "bundle", dict)
    sha256, size = _get(bundle, "sha256", str), _number(bundle, "size", 2 * TOTAL_LIMIT_BYTES)
    if not _SHA256.fullmatch(sha256) or next(reversed(files.values())).end > size:
        raise Invalid("the bundle has no digest, or ends before its last file")
    created_at, checked = _text(facts, "created_at"), _checked(facts)
    manifest = Manifest(found, files, sha256, size, created_at, _origin(facts), checked)
    if manifest.size_bytes > TOTAL_LIMIT_BYTES:
        raise Invalid(f"its files have {manifest.size_bytes} bytes; limit {TOTAL_LIMIT_BYTES}")
    return manifest


def _read_files(rows: Sequence[Any], target_bytes: int) -> dict[str, File]:
    if not 0 < len(rows) <= FILES_LIMIT:
        raise Invalid(f"it does not list 1 to {FILES_LIMIT} files")
    files, end = {}, 0
    for row in rows:
        if type(row) is not tuple or tuple(map(type, row)) != _KINDS:
            raise Invalid("a file lacks a field, or one has the wrong type")
        path, sha256, size, is_executable, stored = row
        if not _SHA256.fullmatch(sha256):
            raise Invalid("sha256 of a file is not 64 hexadecimal digits")
        if not 0 <= stored <= size <= min(FILE_LIMIT_BYTES, stored * RATIO_LIMIT):
            raise Invalid(f"a file of {size!s:.24} bytes cannot have {stored!s:.24} stored bytes")
        if problem := problem_of(path, target_bytes):
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


def read_pointer(data: bytes, keys: Keys | None, bucket: str, prefix: str) -> tuple[Pointer, str]:
    """
    Verify and read a pointer; return it with the id of the key that signed it.

    Args:
        keys: The trusted keys; None if no signature is required: the id is then empty.

    Raises:
        Untrusted: Its signature is missing, invalid, or not from one of the keys.
        Invalid: It is not a pointer; the text says why.
    """
    found = _LINE.search(data)
    body = data[: found.start() + 1] if found else data
    signature = found[1].decode() if found else ""
    signed_by = problem = ""
    if keys is not None:
        signed_by, problem = keys.judge(body, bucket, prefix, signature)
    if problem:
        raise Untrusted(problem)
    if len(data) > POINTER_LIMIT_BYTES:
        raise Invalid(f"it has {len(data)} bytes; the limit is {POINTER_LIMIT_BYTES}")
    facts = _load(body)
    history = tuple(map(_turn, _get(facts, "history", list)))
    pointer = Pointer(_turn(facts), _origin(facts), history)
    turns = [pointer.turn.sequence, *(turn.sequence for turn in history)]
    if len(history) > HISTORY_LIMIT or turns != sorted(set(turns), reverse=True):
        raise Invalid(f"history is not a list of at most {HISTORY_LIMIT} turns, newest first")
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
    if len(path) + target_bytes < PATH_LIMIT_BYTES and _PLAIN.fullmatch(path):
        return ""
    if _CONTROL.search(path):
        return "control_character"
    return refusal_of(path, target_bytes) or ("left_out" if is_left_out(path) else "")


def _inflate(data: bytes) -> bytes:
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
    return text


def _load(data: bytes) -> dict[str, Any]:
    """
    Parse JSON strictly: ASCII, no duplicate names in an object, no NaN, no more than is legal.
    """
    if not data.isascii():  # one character beyond the BMP would take four bytes for each character
        raise Invalid("it contains characters that are not ASCII")
    if data.count(b",") + data.count(b"[") > COMMAS_LIMIT or data.count(b"{") > BRACES_LIMIT:
        raise Invalid(f"it contains more than {COMMAS_LIMIT} commas and lists, or too many objects")
    try:
        facts = json.loads(
            data.decode("ascii"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except Invalid:
        raise
    except (ValueError, RecursionError) as error:
        raise Invalid(f"it is not JSON: {error}") from error
    if type(facts) is not dict:
        raise Invalid("it is not a JSON object")
    if facts.get("format") != FORMAT or type(facts["format"]) is not int:
        raise Invalid(f"its format is {facts.get('format')!r:.50}; this s3-sync reads {FORMAT}")
    return facts


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """
    Return an object; that of a file as a tuple, which is half as large.
    """
    found = dict(pairs[:FIELDS_LIMIT])
    if len(found) < len(pairs):
        raise Invalid("an object has a duplicate name, or too many")
    row = tuple(map(found.get, _ROW))
    return found if None in row else row


def _refuse_constant(text: str) -> None:
    raise Invalid(f"{text} is not a number")


def _turn(facts: Any) -> Turn:
    if type(facts) is not dict:
        raise Invalid("a turn is not a JSON object")
    revision = _get(facts, "version", str)
    if not is_revision(revision):
        raise Invalid(f"{revision!r:.100} is not the id of a release")
    sequence = _number(facts, "sequence", SEQUENCE_LIMIT)
    restores = _number(facts, "restores", sequence - 1) if "restores" in facts else 0
    return Turn(revision, sequence, _text(facts, "since"), restores, _text(facts, "promoted_from"))


# What is only for people is ignored if it is malformed, not refused.


def _origin(facts: Mapping[str, Any]) -> Origin:
    found = facts.get("origin")
    if type(found) is not dict:
        return Origin()
    return Origin(*(_text(found, name) for name in Origin._fields))


def _checked(facts: Mapping[str, Any]) -> Checked | None:
    found = facts.get("airflow")
    if type(found) is not dict:
        return None
    ids, missing = found.get("dag_ids"), found.get("files_not_loaded")
    if type(ids) is not list or type(missing) is not int or {str} != {str, *map(type, ids)}:
        return None
    return Checked(_text(found, "version"), _text(found, "checked_at"), ids, missing)


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
