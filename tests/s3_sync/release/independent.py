"""
A second reader of releases, written from docs/reference/release-format.md alone.

It imports nothing from s3-sync, so both readers agree only if the page is correct and complete.
"""

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Tree = Mapping[str, tuple[bytes, str]]
"""The content and mode (0644 or 0755) of each file, by path."""

_SIGNATURE = re.compile(rb'\{"signature": "([!#-\[\]-~]{1,8000})"\}\n')
_DIGEST = re.compile("[0-9a-f]{64}")
_KIB, _MIB = 1 << 10, 1 << 20


class Refused(Exception):
    """The release does not conform to the page."""


@dataclass(frozen=True)
class Place:
    """The place where a pointer is valid: a bucket, and a prefix with its slash."""

    bucket: str
    prefix: str

    def signed(self, pointer: bytes) -> bytes:
        """Return the bytes that the signature of a pointer covers."""
        return _joined("s3-sync pointer", self.bucket, self.prefix, pointer)


@dataclass(frozen=True)
class Release:
    """A release as a reader sees it; a pinned one has neither sequence nor history."""

    tree: Tree
    revision: str
    verdict: Mapping[str, Any] | None
    sequence: int = 0
    history: tuple[tuple[str, int], ...] = ()


@dataclass
class Reader:
    """Accepts releases signed with one of its `keys`, 32 bytes each; without keys, any release."""

    place: Place
    keys: Sequence[bytes] = ()
    seen: dict[bytes, tuple[int, str]] = field(default_factory=dict)
    """The sequence and revision of the last accepted pointer, by key."""

    def current(self, objects: Mapping[str, bytes]) -> Release:
        """
        Return the release that the pointer names.

        Raises:
            Refused: A reader must not use it.
        """
        text = _object(objects, "current.json", 64 * _KIB)
        body, signature = _without_signature(text, text.rfind(b"\n", 0, -1) + 1)
        key = self._signer(signature, self.place.signed(body))
        pointer = _json(body)
        _of_format(pointer)
        turn, history = _turn(pointer), tuple(map(_turn, _get(pointer, "history", list)))
        release, head = self._release(objects, turn[0])
        lengths = _get(pointer, "manifest", dict)
        size = head.length + sum(length for _, length, _ in head.chunks)
        _demand(lengths.get("head_bytes") == head.length, "the chunks begin elsewhere")
        _demand(lengths.get("size_bytes") == size, "the manifest has another length")
        if key:
            _demand(lengths.get("sha256") == _sha256(head.lines), "another manifest was signed")
            last = self.seen.get(key, turn[::-1])
            _demand(turn[1] > last[0] or turn[::-1] == last, "an old pointer was put back")
            self.seen[key] = turn[1], turn[0]
        return Release(release.tree, turn[0], release.verdict, turn[1], history)

    def pinned(self, objects: Mapping[str, bytes], revision: str) -> Release:
        """
        Return the release with this id, current or not.

        Raises:
            Refused: A reader must not use it.
        """
        return self._release(objects, revision)[0]

    def _release(self, objects: Mapping[str, bytes], revision: str) -> tuple[Release, "_Head"]:
        manifest = _object(objects, f"releases/{revision}.manifest", 64 * _MIB)
        head = _head(manifest)
        self._signer(head.signature, _joined("s3-sync manifest", head.lines))
        facts = _json(head.lines.split(b"\n")[0])
        _of_format(facts)
        _demand(facts.get("revision") == revision, "the manifest of another release")
        _time(facts, "created_at")
        _get(facts, "totals", dict)
        named = _get(facts, "bundle", dict)
        size = _get(named, "size_bytes", int)
        digests = "".join(f"{digest}\n" for digest, _, _ in head.chunks)
        _demand(_sha256(digests.encode()) == revision, "the chunks of another release")
        bundle = _object(objects, f"bundles/{named.get('sha256')}.zip", 2 << 30)
        tree: dict[str, tuple[bytes, str]] = {}
        parts, at, start = [], head.length, 0
        for digest, length, taken in head.chunks:
            rows = _rows(manifest[at : at + length])
            entries = [_entry(path, sha256, mode) for path, _, _, sha256, mode in rows]
            _demand(_sha256(b"".join(entries)) == digest, "the files of another chunk")
            end = start
            for path, stored, unpacked, sha256, mode in rows:
                begin = end + 30 + len(path.encode())
                end = begin + stored
                _demand(end <= size, "a file ends behind the bundle")
                tree[path] = _unpacked(bundle[begin:end], stored, unpacked, sha256), mode
            _demand(end - start == taken, "the files take another part of the bundle")
            parts.append([row[0] for row in rows])
            at, start = at + length, end
        _demand(at == len(manifest), "the manifest has another length")
        paths = [path for part in parts for path in part]
        _demand(sorted(set(paths)) == paths, "not sorted, or one path twice")
        _demand(list(_chunks(paths)) == parts, "the chunks end elsewhere")
        _demand(tree.keys().isdisjoint(_folders(paths)), "both a file and a folder")
        return Release(tree, revision, facts.get("airflow")), head

    def _signer(self, signature: bytes | None, signed: bytes) -> bytes | None:
        if not self.keys:
            return None
        parts = (signature or b"").split(b":")
        for key in self.keys:
            if parts[:2] == [b"ed25519", _key_id(key)] and len(parts) == 3:
                try:
                    proof = base64.b64decode(parts[2], validate=True)
                    Ed25519PublicKey.from_public_bytes(key).verify(proof, signed)
                except (binascii.Error, InvalidSignature):
                    continue
                return key
        raise Refused("signed by no key that is trusted")


@dataclass(frozen=True)
class _Head:
    """The lines of a manifest before its chunks, and the chunks that they list."""

    lines: bytes
    signature: bytes | None
    length: int
    chunks: list[tuple[str, int, int]]


def _head(manifest: bytes) -> _Head:
    first = manifest.find(b"\n", 0, 64 * _KIB) + 1
    second = manifest.find(b"\n", first) + 1
    _demand(0 < first < second, "no two lines")
    end = manifest.find(b"\n", second) + 1
    _, signature = _without_signature(manifest[:end], second)
    chunks = []
    for row in _get(_json(manifest[first:second]), "chunks", list):
        _demand(_types(row) == [str, int, int], "not a chunk")
        _demand(bool(_DIGEST.fullmatch(row[0])) and min(row[1:]) > 0, "not a chunk")
        chunks.append(tuple(row))
    return _Head(manifest[:second], signature, end if signature else second, chunks)


def _without_signature(text: bytes, last: int) -> tuple[bytes, bytes | None]:
    found = _SIGNATURE.fullmatch(text, last)
    return (text[:last], found[1]) if found else (text, None)


def _rows(chunk: bytes) -> list[tuple[str, int, int, str, str]]:
    inflate = zlib.decompressobj()
    try:
        rows = _json(inflate.decompress(chunk, 64 * _MIB))
    except zlib.error as error:
        raise Refused("not a zlib stream") from error
    _demand(inflate.eof and not inflate.unused_data, "more or less than one stream")
    _demand(isinstance(rows, list), "not a list")
    for row in rows:
        _demand(_types(row) == [str, int, int, str, str], "not a row")
        path, stored, size, sha256, mode = row
        _demand(_is_path(path), "not a path")
        _demand(0 <= stored <= size <= min(256 * _MIB, 100 * stored), "not its sizes")
        _demand(bool(_DIGEST.fullmatch(sha256)) and mode in {"0644", "0755"}, "not a content")
    return [tuple(row) for row in rows]


def _is_path(path: str) -> bool:
    try:
        parts = path.encode().split(b"/")
    except UnicodeEncodeError:
        return False
    return (
        "\0" not in path
        and parts[0] != b".s3-sync"
        and all(part not in {b"", b".", b".."} and len(part) <= 255 for part in parts)
    )


def _unpacked(stored: bytes, length: int, size: int, sha256: str) -> bytes:
    _demand(len(stored) == length, "the bundle ends before")
    if length < size:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            stored = inflate.decompress(stored, size + 1)
        except zlib.error as error:
            raise Refused("not a deflate stream") from error
        _demand(inflate.eof and not inflate.unused_data, "more or less than one stream")
    _demand(len(stored) == size and _sha256(stored) == sha256, "another content")
    return stored


def _chunks(paths: Iterable[str]) -> Iterator[list[str]]:
    chunk = []
    for path in paths:
        chunk.append(path)
        if zlib.crc32(path.encode()) % 64 == 0:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _entry(path: str, sha256: str, mode: str) -> bytes:
    return f"{sha256} {'x' if mode == '0755' else '-'} {path}\0".encode()


def _folders(paths: Iterable[str]) -> set[str]:
    return {path[:at] for path in paths for at, letter in enumerate(path) if letter == "/"}


def _object(objects: Mapping[str, bytes], key: str, limit: int) -> bytes:
    _demand(key in objects and len(objects[key]) <= limit, f"no {key}, or a large one")
    return objects[key]


def _json(text: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _demand(len(dict(pairs)) == len(pairs), "a name twice")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise Refused(f"not a number: {constant}")

    try:
        return json.loads(text.decode(), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused("not JSON") from error


def _turn(of: Any) -> tuple[str, int]:
    revision, sequence = _get(of, "revision", str), _get(of, "sequence", int)
    _demand(bool(_DIGEST.fullmatch(revision)) and sequence > 0, "not a turn")
    _time(of, "since")
    return revision, sequence


def _of_format(text: Any) -> None:
    _demand(_get(text, "format", int) == 2, "another format")


def _time(of: Any, name: str) -> None:
    try:
        _demand(datetime.fromisoformat(_get(of, name, str)).tzinfo is not None, "no offset")
    except ValueError as error:
        raise Refused("not a time") from error


def _types(row: Any) -> list[type[Any]]:
    return list(map(type, row)) if isinstance(row, list) else []


def _get(of: Any, name: str, kind: type[Any]) -> Any:
    _demand(isinstance(of, dict) and type(of.get(name)) is kind, f"no {name}")
    return of[name]


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Refused(otherwise)


def _joined(*parts: str | bytes) -> bytes:
    return b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)


def _key_id(key: bytes) -> bytes:
    return _sha256(key)[:16].encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
