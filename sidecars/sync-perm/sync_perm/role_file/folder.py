"""
Globs over the paths of DAG files: pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable


def check_glob(glob: str) -> None:
    """
    Accept a glob.

    Raises:
        ValueError: It would never match, or not what it seems to.
    """
    segments = glob.split("/")
    if glob.startswith("/"):
        raise ValueError("begins with /; write it from the DAG folder, or the root of the bundle")
    if any("**" in segment and segment != "**" for segment in segments):
        raise ValueError("has a ** that is not a whole segment between two /")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("has a segment that is empty, . or ..; write such as team-a/**")
    if not re.search(r"[*?]|\.(py|zip)$", segments[-1]):
        raise ValueError(f"names a folder itself; for the DAGs in it write {glob}/**")


def matcher(glob: str) -> Callable[[str], bool]:
    """
    Return whether a path matches a glob, as a function of the path.

    ``*`` is any text but ``/``, ``?`` one character of such, and ``**`` any number of folders; at
    the end everything below.
    """
    *above, last = glob.split("/")
    pattern = "".join("(?:[^/]+/)*" if part == "**" else f"{_one(part)}/" for part in above)
    match = re.compile(pattern + (".+" if last == "**" else _one(last)), re.DOTALL).fullmatch
    return lambda path: match(path) is not None


def _one(segment: str) -> str:
    marks = {"*": "[^/]*", "?": "[^/]"}
    return "".join(marks.get(letter, re.escape(letter)) for letter in segment)
