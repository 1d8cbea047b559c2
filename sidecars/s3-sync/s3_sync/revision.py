"""
The revision of a set of files: a digest over the digests of its chunks. Pure.

See docs/reference/release-format.md: a reader that knows one release verifies the next one from
only the chunks that differ.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

from s3_sync.digest import sha256_of

# One path in this many ends a chunk: 10,000 files are 160 chunks of 64 rows, 10 KB of digests and
# 4 KB for a chunk.
CHUNK_FILES = 64
SHORT_DIGITS = 12

_REVISION = re.compile(r"[0-9a-f]{64}")


def is_revision(found: object) -> bool:
    return isinstance(found, str) and _REVISION.fullmatch(found) is not None


def short(revision: str) -> str:
    """
    Return a revision shortened for display.
    """
    return revision[:SHORT_DIGITS] if is_revision(revision) else revision


def revision_of(files: Iterable[tuple[str, str, bool]]) -> str:
    """
    Return the revision of a set of files.

    Args:
        files: Path, SHA-256 and whether the file is executable, in the order of paths.
    """
    entries = list(files)
    ends = chunk_ends([path for path, _, _ in entries])
    return revision_of_chunks(chunk_digest(entries[a:b]) for a, b in pairwise((0, *ends)))


def revision_of_chunks(digests: Iterable[str]) -> str:
    return sha256_of("".join(f"{digest}\n" for digest in digests).encode())


def chunk_digest(files: Iterable[tuple[str, str, bool]]) -> str:
    lines = [f"{sha256} {'x' if is_x else '-'} {path}\0" for path, sha256, is_x in files]
    return sha256_of("".join(lines).encode())


def ends_chunk(path: str) -> bool:
    """
    Whether a chunk ends with this file; it depends on the path only, so adding a file changes one
    chunk.
    """
    return not zlib.crc32(path.encode()) % CHUNK_FILES


def chunk_ends(paths: Sequence[str]) -> list[int]:
    """
    Return the end index of each chunk.
    """
    ends = [at for at, path in enumerate(paths, 1) if ends_chunk(path)]
    return ends if ends and ends[-1] == len(paths) else [*ends, len(paths)]
