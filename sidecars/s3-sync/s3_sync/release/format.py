"""
The format of a release: parses and writes manifest and pointer. Pure.

See docs/reference/release-format.md. What is parsed may be hostile: the memory that it takes is
bounded by what a legal release of the largest size takes.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from s3_sync.digest import EXECUTABLE, is_revision, revision_of
from s3_sync.keys import NAME_LIMIT_BYTES, PATH_LIMIT_BYTES, refusal_of
from sidecar_runtime.printable import counted

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
# A file has five commas; the rest is for names.
COMMAS_LIMIT = 6 * FILES_LIMIT
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
_HEX = re.compile(r"[0-9a-f]*")
# The names of a file's fields in JSON.
_ROW = ("path", "sha256", "size", "executable", "stored")
_CONTROL = re.compile(r"[\x00-\x1f]")
# In all paths together: what makes the quick check ask for the thorough one.
_ODD = re.compile(
    r"//|/\.\.?/|/\.s3-sync/|[\x01-\x1f]|\.pyc/|/__pycache__/|/\.git/"
    r"|/\.airflow-bundle-manifest\.json/|/bundles/|/releases/|/pins/"
)
_BETWEEN = "/\0/"
_GZIP = 31


class Invalid(ValueError):
    """
    A pointer or a manifest violates the format.
    """


class File(NamedTuple):
    """
    One file of a release.

    Args:
        stored_bytes: If equal to `size_bytes`, stored unchanged; if less, a raw deflate stream.
    """

    path: str
    sha256: str
    size_bytes: int
    is_executable: bool
    stored_bytes: int

    @property
    def etag(self) -> str:
        """
        A fingerprint of its content and its executable bit.
        """
        return f"{self.sha256}{EXECUTABLE}" if self.is_executable else self.sha256


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
        return {name: text for name, text in self._asdict().items() if text}


class Checked(NamedTuple):
    """
    What a real Airflow found in the files before they were published.

    Args:
        dag_ids: The ids of all DAGs that it loaded, sorted.
        files_not_loaded: How many files were not loaded, with errors that were allowed.
    """

    airflow: str
    at: datetime
    dag_ids: tuple[str, ...] = ()
    files_not_loaded: int = 0

    def facts(self) -> dict[str, Any]:
        return {
            "version": self.airflow,
            "checked_at": time_text(self.at),
            "dag_ids": list(self.dag_ids),
            "files_not_loaded": self.files_not_loaded,
        }

    def __str__(self) -> str:
        dags = counted(len(self.dag_ids), "DAG")
        if self.files_not_loaded:
            dags += f", {counted(self.files_not_loaded, 'file')} not loaded"
        return f"Airflow {self.airflow} at {time_text(self.at)}: {dags}"


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
    created_at: datetime
    origin: Origin = Origin()
    checked: Checked | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())

    def locate(self) -> dict[str, int]:
        """
        Return the offset of each file in the bundle.
        """
        offsets, end = {}, 0
        for path, file in self.files.items():
            offsets[path] = end + HEADER_BYTES + len(path.encode())
            end = offsets[path] + file.stored_bytes
        return offsets


class Turn(NamedTuple):
    """
    A period during which a release was current.

    Args:
        sequence: Higher than that of the turn before.
        restores: After a rollback, the sequence of the restored turn; 0 after a publish.
        promoted_from: The place from which it was promoted, for people only; or empty.
    """

    revision: str
    sequence: int
    since: datetime
    restores: int = 0
    promoted_from: str = ""

    def facts(self) -> dict[str, Any]:
        more = {
            "restores": self.restores,
            "promoted_from": self.promoted_from[:PLACE_LIMIT_CHARACTERS],
        }
        return {
            "version": self.revision,
            "sequence": self.sequence,
            "since": time_text(self.since),
            **{name: found for name, found in more.items() if found},
        }


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
        "created_at": time_text(manifest.created_at),
        "origin": _cut(manifest.origin),
        **({"airflow": manifest.checked.facts()} if manifest.checked else {}),
        "bundle": {"sha256": manifest.bundle_sha256, "size": manifest.bundle_bytes},
        "files": [
            {
                "executable": file.is_executable,
                "path": file.path,
                "sha256": file.sha256,
                "size": file.size_bytes,
                "stored": file.stored_bytes,
            }
            for file in manifest.files.values()
        ],
    }
    deflater = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    text = json.dumps(facts, separators=(",", ":")).encode()
    return deflater.compress(text) + deflater.flush()


def write_pointer(pointer: Pointer) -> bytes:
    facts = {
        "format": FORMAT,
        **pointer.turn.facts(),
        "origin": _cut(pointer.origin),
        "history": [turn.facts() for turn in pointer.history[:HISTORY_LIMIT]],
    }
    return json.dumps(facts, indent=1).encode() + b"\n"


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _cut(origin: Origin) -> dict[str, str]:
    return {name: text[:TEXT_LIMIT_CHARACTERS] for name, text in origin.facts().items()}


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
    rows = _get(facts, "files", list)
    if not 0 < len(rows) <= FILES_LIMIT or set(map(type, rows)) != {File}:
        raise Invalid(f"it does not list 1 to {FILES_LIMIT} files, or one lacks a field")
    _check_rows(rows)
    found = revision_of(row[:4] for row in rows)
    if not revision == found == _get(facts, "version", str):
        raise Invalid(f"its files belong to {found}")
    files = {row.path: row for row in rows}
    check_paths(list(files), target_bytes, count=len(rows))
    bundle = _get(facts, "bundle", dict)
    manifest = Manifest(
        found,
        files,
        _sha256(bundle, "sha256"),
        _size(bundle, "size", 2 * TOTAL_LIMIT_BYTES),
        _time(facts, "created_at"),
        _origin(facts),
        _checked(facts),
    )
    if manifest.size_bytes > TOTAL_LIMIT_BYTES:
        raise Invalid(f"its files have {manifest.size_bytes} bytes; limit {TOTAL_LIMIT_BYTES}")
    last = rows[-1]
    if manifest.locate()[last.path] + last.stored_bytes > manifest.bundle_bytes:
        raise Invalid("its files extend beyond the bundle")
    return manifest


def parse_pointer(data: bytes) -> Pointer:
    """
    Read the JSON of a pointer, without its signature.

    Raises:
        Invalid: It is not a pointer; the text says why.
    """
    if len(data) > POINTER_LIMIT_BYTES:
        raise Invalid(f"it has {len(data)} bytes; the limit is {POINTER_LIMIT_BYTES}")
    facts = _load(data)
    history = tuple(map(_turn, _get(facts, "history", list)))
    pointer = Pointer(_turn(facts), _origin(facts), history)
    turns = [pointer.turn.sequence, *(turn.sequence for turn in history)]
    if len(history) > HISTORY_LIMIT or turns != sorted(set(turns), reverse=True):
        raise Invalid(f"history is not a list of at most {HISTORY_LIMIT} turns, newest first")
    return pointer


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
    return refusal_of(path, target_bytes) or ("left_out" if is_left_out(path) else "")


def check_paths(paths: Sequence[str], target_bytes: int, count: int) -> None:
    """
    Check that all paths can become files below one folder.

    Args:
        paths: Without duplicates.
        count: How many there were with duplicates.

    Raises:
        Invalid: One of them cannot, or they are not sorted or not unique.
    """
    if not _are_plain(paths, target_bytes):
        for path in paths:
            if problem := problem_of(path, target_bytes):
                raise Invalid(f"the path {path!r:.300} cannot become a file: {problem}")
    if len(paths) < count or sorted(paths) != paths:
        raise Invalid("files are not sorted by path, or not unique")
    if clashes := _folders_of(paths).intersection(paths):
        raise Invalid(f"{min(clashes)!r:.300} is both a file and a folder")


def _are_plain(paths: Sequence[str], target_bytes: int) -> bool:
    """
    Whether a quick check of all paths together accepts them; it does for most releases.
    """
    joined = f"/{_BETWEEN.join(paths)}/"
    try:
        longest = max(map(len, joined.encode().split(b"\0"))) - 2
    except UnicodeEncodeError:
        return False
    return (
        joined.count("\0") == len(paths) - 1
        and longest <= NAME_LIMIT_BYTES
        and longest + target_bytes < PATH_LIMIT_BYTES
        and not _ODD.search(joined)
    )


def _folders_of(paths: Iterable[str]) -> set[str]:
    """
    Return all parent folders of files.
    """
    folders: set[str] = set()
    level = {path.rpartition("/")[0] for path in paths}
    while level := {folder for folder in level if folder} - folders:
        folders |= level
        level = {folder.rpartition("/")[0] for folder in level}
    return folders


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
    if data.count(b",") + data.count(b"[") > COMMAS_LIMIT:
        raise Invalid(f"it contains more than {COMMAS_LIMIT} commas and lists")
    left = FILES_LIMIT + FIELDS_LIMIT

    def take(pairs: list[tuple[str, Any]]) -> Any:
        nonlocal left
        left -= 1
        found = dict(pairs) if len(pairs) <= FIELDS_LIMIT and left > 0 else {}
        if len(found) < len(pairs) or left <= 0:
            raise Invalid("an object has a duplicate name, or there are too many")
        row = tuple(map(found.get, _ROW))
        return found if None in row else File._make(row)

    try:
        facts = json.loads(
            data.decode("ascii"), object_pairs_hook=take, parse_constant=_refuse_constant
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


def _refuse_constant(text: str) -> None:
    raise Invalid(f"{text} is not a number")


def _check_rows(rows: Sequence[File]) -> None:
    """
    Check the fields of all files together, which takes a third of the time.
    """
    kinds = (str, str, int, bool, int)
    columns = list(zip(*rows, strict=True))
    for name, kind, column in zip(File._fields, kinds, columns, strict=True):
        if set(map(type, column)) != {kind}:
            raise Invalid(f"{name} of a file is missing or has the wrong type")
    _, digests, sizes, _, stored = columns
    if set(map(len, digests)) != {64} or not _HEX.fullmatch("".join(digests)):
        raise Invalid("sha256 of a file is not 64 hexadecimal digits")
    for size, kept in zip(sizes, stored, strict=True):
        if not 0 <= kept <= size <= min(FILE_LIMIT_BYTES, kept * RATIO_LIMIT):
            raise Invalid(f"a file of {size!s:.24} bytes cannot have {kept!s:.24} stored bytes")


def _turn(facts: Any) -> Turn:
    if type(facts) is not dict:
        raise Invalid("a turn is not a JSON object")
    revision = _get(facts, "version", str)
    if not is_revision(revision):
        raise Invalid(f"{revision!r:.100} is not the id of a release")
    sequence = _size(facts, "sequence", SEQUENCE_LIMIT)
    restores = _size(facts, "restores", sequence - 1) if "restores" in facts else 0
    return Turn(revision, sequence, _time(facts, "since"), restores, _text(facts, "promoted_from"))


def _origin(facts: Mapping[str, Any]) -> Origin:
    """
    Read the origin. It is only for people, so malformed fields are ignored, not refused.
    """
    found = facts.get("origin")
    if type(found) is not dict:
        return Origin()
    return Origin(**{name: _text(found, name) for name in Origin._fields})


def _checked(facts: Mapping[str, Any]) -> Checked | None:
    """
    Read what Airflow found. It is only for people: if malformed, it is ignored.
    """
    found = facts.get("airflow")
    try:
        if type(found) is not dict:
            return None
        ids = _get(found, "dag_ids", list)
        if any(type(one) is not str for one in ids):
            return None
        missing = _size(found, "files_not_loaded", FILES_LIMIT, least=0)
        return Checked(_text(found, "version"), _time(found, "checked_at"), tuple(ids), missing)
    except Invalid:
        return None


def _get(facts: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    found = facts.get(name)
    if type(found) is not kind:
        raise Invalid(f"{name} is missing or has the wrong type")
    return found


def _sha256(facts: Mapping[str, Any], name: str) -> str:
    digest: str = _get(facts, name, str)
    if not _SHA256.fullmatch(digest):
        raise Invalid(f"{name} is not 64 hexadecimal digits")
    return digest


def _size(facts: Mapping[str, Any], name: str, limit: int, least: int = 1) -> int:
    size: int = _get(facts, name, int)
    if not least <= size <= limit:
        raise Invalid(f"{name} is {size!s:.24}, not {least} to {limit}")
    return size


def _time(facts: Mapping[str, Any], name: str) -> datetime:
    try:
        at = datetime.fromisoformat(_get(facts, name, str))
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{name} is not a time") from error
    raise Invalid(f"{name} is a time without an offset")


def _text(facts: Mapping[str, Any], name: str) -> str:
    found = facts.get(name)
    return found[:TEXT_LIMIT_CHARACTERS] if type(found) is str else ""
