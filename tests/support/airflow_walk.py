"""
Which files Airflow parses in a DAG folder, by its documentation.

https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#airflowignore: the
walk follows symlinks; an `.airflowignore` holds for its folder and all below; in the syntax
`regexp` a pattern is searched for in the path from the DAG folder, in `glob` it is one of
`.gitignore`. Of the files that are left, those in Python and in zip archives are taken, if they
mention both "dag" and "airflow" (DAG_DISCOVERY_SAFE_MODE).
"""

import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

Syntax = Literal["regexp", "glob"]
Rule = Callable[[Path, bool], bool | None]
"""Whether a path (and: is it a folder) is ignored; None = the rule says nothing of it."""

IGNORE_FILE = ".airflowignore"


class RecursiveLoop(Exception):
    """
    The walk comes to one folder on two ways, which Airflow does not bear.
    """


def find_dag_files(dag_folder: Path, syntax: Syntax) -> list[str]:
    """
    Return the paths that Airflow parses, as often as it finds them.

    Raises:
        RecursiveLoop: There is a symlink to a folder that the walk meets elsewhere too.
    """
    return [str(path) for path in _walk(dag_folder, dag_folder, syntax, [], set()) if _is_dag(path)]


def _walk(
    folder: Path, dag_folder: Path, syntax: Syntax, above: list[Rule], met: set[Path]
) -> Iterator[Path]:
    rules = above + _rules_in(folder, dag_folder, syntax)
    folders = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        if entry.name == IGNORE_FILE or _is_ignored(path, entry.is_dir(), rules):
            continue
        if entry.is_dir():
            folders.append(path)
        else:
            yield path
    for path in folders:  # all of one folder before any of their insides, as os.walk does
        if path.resolve() in met:
            raise RecursiveLoop(path)
        met.add(path.resolve())
    for path in folders:
        yield from _walk(path, dag_folder, syntax, rules, met)


def _rules_in(folder: Path, dag_folder: Path, syntax: Syntax) -> list[Rule]:
    try:
        lines = (folder / IGNORE_FILE).read_text().splitlines()
    except FileNotFoundError:
        return []
    patterns = [line.partition("#")[0].strip() for line in lines]
    make = _by_regexp if syntax == "regexp" else _by_glob
    top = dag_folder if syntax == "regexp" else folder
    return [make(pattern, top) for pattern in patterns if pattern]


def _is_ignored(path: Path, is_folder: bool, rules: list[Rule]) -> bool:
    answers = [rule(path, is_folder) for rule in rules]
    return next((answer for answer in reversed(answers) if answer is not None), False)


def _by_regexp(pattern: str, dag_folder: Path) -> Rule:
    compiled = re.compile(pattern)
    return lambda path, is_folder: compiled.search(str(path.relative_to(dag_folder))) and True


def _by_glob(pattern: str, folder: Path) -> Rule:
    """
    https://git-scm.com/docs/gitignore: the last pattern that fits decides, `!` takes back.
    """
    verdict = not pattern.startswith("!")
    body = pattern.removeprefix("!")
    for_folders = body.endswith("/")
    is_anchored = "/" in body.rstrip("/")
    compiled = re.compile(_translate(body.strip("/")))

    def rule(path: Path, is_folder: bool) -> bool | None:
        subject = str(path.relative_to(folder)) if is_anchored else path.name
        fits = compiled.fullmatch(subject) and (is_folder or not for_folders)
        return verdict if fits else None

    return rule


def _translate(glob: str) -> str:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", glob)
    return "".join(
        words.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts
    )


def _is_dag(path: Path) -> bool:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(
                _mentions_dag(archive.read(name))
                for name in archive.namelist()
                if name.endswith(".py")
            )
    return path.suffix == ".py" and path.is_file() and _mentions_dag(path.read_bytes())


def _mentions_dag(content: bytes) -> bool:
    return b"dag" in content.lower() and b"airflow" in content.lower()
