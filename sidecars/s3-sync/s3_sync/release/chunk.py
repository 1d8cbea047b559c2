"""
A chunk of a manifest: compressed rows of neighboring files, identified by a digest. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted
from typing import NamedTuple

from s3_sync.release.facts import check_marks, load_json
from s3_sync.release.rows import File, Invalid, folders_of, read_rows
from s3_sync.revision import chunk_digest, chunk_ends

LEVEL = 6
# The length of a row without its path and its sizes.
_ROW_BYTES = len(f'[, , , "{"0" * 64}", "0644"],\n')


class ChunkEntry(NamedTuple):
    """
    The entry of a chunk in the head of a manifest.

    Args:
        digest: Of paths, contents and executable bits.
        stored_bytes: The size of the chunk in the manifest.
        bundled_bytes: The size of its files in the bundle, with their headers.
    """

    digest: str
    stored_bytes: int
    bundled_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    A parsed chunk; immutable.

    Args:
        files: Sorted by path, with offsets from the start of the chunk in the bundle.
        folders: All parent folders of the files.
        size_bytes: The total size of the files.
    """

    entry: ChunkEntry
    files: tuple[File, ...] = field(repr=False)
    folders: frozenset[str] = field(repr=False)
    size_bytes: int


def row_bytes(path: str, size_bytes: int) -> int:
    """
    Return the maximum length of the row of a file, whatever its compressed size.
    """
    return _ROW_BYTES + len(_quoted(path)) + 2 * len(str(size_bytes))


def make_chunk(files: Sequence[File]) -> tuple[Chunk, bytes]:
    """
    Return the chunk of these files, and its bytes in a manifest.
    """
    rows = ",\n".join(
        f"[{_quoted(path)}, {stored}, {size}, {_quoted(sha256)}, {_quoted(mode)}]"
        for path, stored, size, sha256, mode, _ in files
    )
    data = zlib.compress(f"[{rows}]\n".encode(), LEVEL)
    entry = ChunkEntry(_digest(files), len(data), files[-1].offset + files[-1].stored_bytes)
    return _chunk(entry, tuple(files)), data


def inflate(data: bytes, limit_bytes: int) -> bytes:
    """
    Inflate the rows of a chunk.

    Raises:
        Invalid: It is not a valid stream, or too long.
    """
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, limit_bytes + 1)  # to zlib, 0 is no limit
    except zlib.error as error:
        raise Invalid(f"a chunk cannot be inflated: {error}") from error
    if len(text) > limit_bytes or not inflater.eof or inflater.unused_data:
        raise Invalid("a chunk is too long, or does not end where it should")
    return text


def read_chunk(entry: ChunkEntry, text: bytes, target_bytes: int) -> Chunk:
    """
    Read the rows of a chunk; afterwards its files are safe to write below a target.

    Raises:
        Invalid: They do not match the entry, or contain a path that must not be written.
    """
    check_marks(text)
    rows = load_json(text)
    if not isinstance(rows, list):
        raise Invalid("a chunk is not a list")
    files, bundled_bytes = read_rows(rows, target_bytes)
    if _digest(files) != entry.digest:
        raise Invalid("the files of a chunk do not match its digest")
    if chunk_ends([file.path for file in files]) != [len(files)]:
        raise Invalid("a chunk does not end where its file names require")
    if bundled_bytes != entry.bundled_bytes:
        raise Invalid(
            f"a chunk takes {bundled_bytes} bytes of the bundle, not {entry.bundled_bytes}"
        )
    return _chunk(entry, files)


def _chunk(entry: ChunkEntry, files: tuple[File, ...]) -> Chunk:
    folders = frozenset(folders_of(file.path for file in files))
    return Chunk(entry, files, folders, sum(file.size_bytes for file in files))


def _digest(files: Iterable[File]) -> str:
    return chunk_digest((file.path, file.sha256, file.is_executable) for file in files)
