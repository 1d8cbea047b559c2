"""
A chunk of a manifest: the rows of neighbors, compressed, known by a digest of what they say. Pure.
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
# A row without its path and its sizes.
_ROW_BYTES = len(f'[, , , "{"0" * 64}", "0644"],\n')


class Entry(NamedTuple):
    """
    What a manifest says of a chunk before it comes.

    Args:
        digest: Of paths, contents and executable bits.
        stored_bytes: How long it is in the manifest.
        bundled_bytes: How much of the bundle its files take, with their headers.
    """

    digest: str
    stored_bytes: int
    bundled_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    A chunk that was read; immutable.

    Args:
        files: In the order of paths, with offsets from where the chunk begins in the bundle.
        folders: All that they need.
        size_bytes: Of all files.
    """

    entry: Entry
    files: tuple[File, ...] = field(repr=False)
    folders: frozenset[str] = field(repr=False)
    size_bytes: int


def row_bytes(path: str, size_bytes: int) -> int:
    """
    Return how long the row of a file is at most, however well it is compressed.
    """
    return _ROW_BYTES + len(_quoted(path)) + 2 * len(str(size_bytes))


def make_chunk(files: Sequence[File]) -> tuple[Chunk, bytes]:
    """
    Return the chunk of these files, and how it is in a manifest.
    """
    rows = ",\n".join(
        f"[{_quoted(path)}, {stored}, {size}, {_quoted(sha256)}, {_quoted(mode)}]"
        for path, stored, size, sha256, mode, _ in files
    )
    data = zlib.compress(f"[{rows}]\n".encode(), LEVEL)
    entry = Entry(_digest(files), len(data), files[-1].offset + files[-1].stored_bytes)
    return _chunk(entry, tuple(files)), data


def inflate(data: bytes, limit_bytes: int) -> bytes:
    """
    Return the rows of a chunk as text.

    Raises:
        Invalid: It is no stream, or a longer one.
    """
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, limit_bytes + 1)  # to zlib, 0 is no limit
    except zlib.error as error:
        raise Invalid(f"a chunk cannot be inflated: {error}") from error
    if len(text) > limit_bytes or not inflater.eof or inflater.unused_data:
        raise Invalid("a chunk is too long, or does not end where it should")
    return text


def read_chunk(entry: Entry, text: bytes, target_bytes: int) -> Chunk:
    """
    Read the rows of a chunk; whatever they say can then be written below a target.

    Raises:
        Invalid: They are not what the list says, or name what must not be written.
    """
    check_marks(text)
    rows = load_json(text)
    if not isinstance(rows, list):
        raise Invalid("a chunk is not a list")
    files, bundled_bytes = read_rows(rows, target_bytes)
    if _digest(files) != entry.digest:
        raise Invalid("the files of a chunk are not those of its digest")
    if chunk_ends([file.path for file in files]) != [len(files)]:
        raise Invalid("a chunk does not end where its names say")
    if bundled_bytes != entry.bundled_bytes:
        raise Invalid(f"a chunk takes {bundled_bytes} bytes of the bundle, not as it says")
    return _chunk(entry, files)


def _chunk(entry: Entry, files: tuple[File, ...]) -> Chunk:
    folders = frozenset(folders_of(file.path for file in files))
    return Chunk(entry, files, folders, sum(file.size_bytes for file in files))


def _digest(files: Iterable[File]) -> str:
    return chunk_digest((file.path, file.sha256, file.is_executable) for file in files)
