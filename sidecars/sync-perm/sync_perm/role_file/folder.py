"""
Matches globs against the paths of DAG files; pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable


def check_glob(glob: str) -> None:
    """
    Check a glob.

    Raises:
        ValueError: The glob would never match, or match something unexpected.
    """
    segments = glob.split("/")
    if glob.startswith("/"):
        raise ValueError("begins with /; start it below the DAG folder, or the bundle's root")
    if any("**" in segment and segment != "**" for segment in segments):
        raise ValueError("has a ** that is not a whole path segment")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("has a segment that is empty, . or ..; write a path such as team-a/**")
    # Airflow stores the path within an archive, team-a/pack.zip/dag.py, so it is a folder too.
    if not re.search(r"[*?]|\.py$", segments[-1]) or segments[-1].endswith(".zip"):
        raise ValueError(f"names a folder; to select the DAGs in it, write {glob}/**")


def matcher(glob: str) -> Callable[[str], bool]:
    """
    Return a function that reports whether a path matches a glob.

    ``*`` matches any text without ``/``, ``?`` one such character, and ``**`` any number of
    folders; at the end, ``**`` matches everything below.
    """
    *above, last = glob.split("/")
    pattern = "".join("(?:[^/]+/)*" if part == "**" else f"{_one(part)}/" for part in above)
    match = re.compile(pattern + (".+" if last == "**" else _one(last)), re.DOTALL).fullmatch
    return lambda path: match(path) is not None


def _one(segment: str) -> str:
    marks = {"*": "[^/]*", "?": "[^/]"}
    return "".join(marks.get(letter, re.escape(letter)) for letter in segment)
