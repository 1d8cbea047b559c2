"""
What things are called: a key as a path below the target, or why it cannot become one; a
file by its content; a release by its id. Pure.

The content of a file is the ETag of an object, which may be an MD5, or in a release
SHA-256 and executable bit, ``<64 hex digits>[+x]``. The id of a release is the version
that Airflow's own manifest bundles give to the same files: ``sha256-`` and the SHA-256
of a canonical JSON (docs/reference/release-format.md).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

RESERVED = ".s3-sync"
NAME_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 4095
# Deeper nesting is not intentional, and Python's folder walk fails at about 1,000
# levels.
DEPTH_LIMIT = 200

# Objects that `s3-sync publish` writes beside its pointer
# (docs/reference/release-format.md). Airflow would load each bundle, a zip file, as
# DAGs.
_OF_RELEASE = re.compile(
    r"(bundles/#\.zip|releases/sha256-#\.json\.gz|pins/sha256-#)".replace(
        "#", "[0-9a-f]{64}"
    )
)
POINTER = "current.json"

# Objects that must be restored before they can be read, unlike Glacier Instant
# Retrieval.
ARCHIVED_CLASSES = {"GLACIER", "DEEP_ARCHIVE"}

EXECUTABLE = "+x"
BEGINNING = "sha256-"
SHORT_DIGITS = 12

_MD5 = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"sha256-[0-9a-f]{64}")


def skip_reason_of(path: str, target_bytes: int) -> str | None:
    """
    Return why a relative path cannot be published, or None.

    Args:
        path: The key without its prefix.
        target_bytes: Length of the target's own path.
    """
    parts = path.split("/")
    if "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
        return "unsafe_path"
    if parts[0].casefold() == RESERVED:  # in any case, which some volumes ignore
        return "reserved"
    if _OF_RELEASE.fullmatch(path):
        return "release"
    if len(parts) > DEPTH_LIMIT:
        return "too_deep"
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "unsafe_path"
    path_bytes = target_bytes + sum(lengths) + len(parts)
    if path_bytes > PATH_LIMIT_BYTES or max(lengths) > NAME_LIMIT_BYTES:
        return "name_too_long"
    return None


def compile_filter(
    include: Sequence[str], exclude: Sequence[str]
) -> Callable[[str], bool]:
    """
    Return a predicate for wanted relative paths; globs match as in ``aws s3 sync``.
    """
    takes = _compile(include or ["*"])
    leaves = _compile(exclude)
    return lambda path: bool(takes.fullmatch(path)) and not leaves.fullmatch(path)


def _compile(globs: Sequence[str]) -> re.Pattern[str]:
    """
    Return what matches one of the globs; without globs, it matches no path.
    """
    return re.compile("|".join(map(fnmatch.translate, globs)))


def folders_of(paths: Iterable[str]) -> set[str]:
    """
    Return the folders above files.
    """
    found: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


class Content(Protocol):
    """
    Identifies the content of a file.
    """

    @property
    def etag(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...


# The files of a source or a tree, by path.
Files: TypeAlias = Mapping[str, Content]


def is_held(held: Content | None, file: Content) -> bool:
    """
    Whether what is held of a path has the content of a file.
    """
    return (
        held is not None
        and held.etag == file.etag
        and held.size_bytes == file.size_bytes
    )


def not_held(paths: Iterable[str], files: Files, held: Files) -> list[str]:
    """
    Return the paths whose file is not held.
    """
    return [
        path
        for path in paths
        # mostly the same object, where two states of one folder are compared
        if held.get(path) is not files[path]
        and not is_held(held.get(path), files[path])
    ]


def revision_of(files: Files, more: Iterable[str] = ()) -> str:
    """
    Return the name of files: a short digest of all paths, ETags and sizes, and of other
    paths.
    """
    named = [
        f"{path}\0{files[path].etag}\0{files[path].size_bytes}"
        for path in sorted(files)
    ]
    named += sorted(more)
    return hashlib.blake2b(
        "\0".join(named).encode(errors="replace"), digest_size=6
    ).hexdigest()


def looks_like_md5(etag: str) -> bool:
    """
    Whether an ETag looks like an MD5; not every such ETag is one.
    """
    return _MD5.fullmatch(etag) is not None


def is_hex(text: str) -> bool:
    """
    Whether a text is a SHA-256 as we write it.
    """
    return _SHA256.fullmatch(text) is not None


def is_executable(etag: str) -> bool:
    """
    Whether the file should be executable.
    """
    return etag.endswith(EXECUTABLE) and is_hex(etag.removesuffix(EXECUTABLE))


def has_digest(etag: str, blocks: Iterable[bytes]) -> bool:
    """
    Whether blocks have the ETag's digest; False for an ETag that is not a digest.
    """
    if looks_like_md5(etag):
        return etag == hash_of("md5", blocks).hex()
    sha256 = etag.removesuffix(EXECUTABLE)
    return is_hex(sha256) and sha256 == hash_of("sha256", blocks).hex()


def hash_of(name: str, blocks: Iterable[bytes]) -> bytes:
    """
    Return a hash of blocks; marked as not for security, so that MD5 works under FIPS.
    """
    digest = hashlib.new(name, usedforsecurity=False)
    for block in blocks:
        digest.update(block)
    return digest.digest()


def sha256_of(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


EMPTY_SHA256 = sha256_of(b"")


def is_revision(text: str) -> bool:
    return _REVISION.fullmatch(text) is not None


def short(revision: str) -> str:
    """
    Return a revision shortened for display; anything else as it is.
    """
    return (
        revision[len(BEGINNING) :][:SHORT_DIGITS] if is_revision(revision) else revision
    )


def release_id_of(files: Iterable[tuple[str, str, int, bool]]) -> str:
    """
    Return the id of a set of files.

    Args:
        files: Path, SHA-256, size in bytes and whether it is executable, sorted by
            path.
    """
    rows = [
        {"executable": is_executable, "path": path, "sha256": sha256, "size": size}
        for path, sha256, size, is_executable in files
    ]
    text = json.dumps({"files": rows, "schema_version": 1}, separators=(",", ":"))
    return BEGINNING + sha256_of(text.encode())
