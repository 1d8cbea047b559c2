"""
Maps a key to a path below the target, or to the reason why it cannot become one. Pure.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterator, Sequence

RESERVED = ".s3-sync"
NAME_LIMIT_BYTES = 255
PATH_LIMIT_BYTES = 4095
# Deeper nesting is not intentional, and Python's folder walk fails at about 1,000 levels.
DEPTH_LIMIT = 200

# Objects that `s3-sync publish` writes beside its pointer (docs/reference/release-format.md).
# Airflow would load each bundle, a zip file, as DAGs.
_OF_RELEASE = re.compile(
    r"(bundles/#\.zip|releases/sha256-#\.json\.gz|pins/sha256-#)".replace("#", "[0-9a-f]{64}")
)
POINTER = "current.json"

# Objects that must be restored before they can be read, unlike Glacier Instant Retrieval.
ARCHIVED_CLASSES = {"GLACIER", "DEEP_ARCHIVE"}


def refusal_of(path: str, target_bytes: int) -> str | None:
    """
    Return why a relative path cannot be published, or None.

    Args:
        path: The key without its prefix.
        target_bytes: Length of the target's own path.
    """
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        return "unsafe_path"
    if parts[0] == RESERVED:
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


def compile_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """
    Return a predicate for wanted relative paths; globs match as in ``aws s3 sync``.
    """
    takes, leaves = _compile(include or ["*"]), _compile(exclude)
    return lambda path: bool(takes.fullmatch(path)) and not leaves.fullmatch(path)


def _compile(globs: Sequence[str]) -> re.Pattern[str]:
    """
    Return what matches one of the globs; without globs, it matches no path.
    """
    return re.compile("|".join(map(fnmatch.translate, globs)))


def folders_of(paths: Collection[str]) -> Iterator[str]:
    """
    Yield the folders above files.
    """
    for path in paths:
        while path := path.rpartition("/")[0]:
            yield path
