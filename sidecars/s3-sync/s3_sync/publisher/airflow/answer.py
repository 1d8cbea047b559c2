"""
Reads the answer of ``runner``: the DAGs of a folder, and its problems.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar_runtime.child import ending
from sidecar_runtime.gate.checks import Finding

TAIL_LINES = 6
LINE_CHARACTERS = 300

# The errors of an import that may succeed in another Airflow; patterns for Airflow 2 and 3.
LACKS = {
    "package": re.compile(
        r"(?:^|(?:ModuleNotFoundError|AirflowOptionalProviderFeatureException): )"
        r"No module named '([^']+)'"
    ),
    "variable": re.compile(
        r"KeyError: ['\"]Variable (.+?) does not exist"
        r"|VARIABLE_NOT_FOUND\b.*Variable (.+?) not found"
    ),
    "connection": re.compile(
        r"The conn_id `([^`]+)` isn't defined|CONNECTION_NOT_FOUND\b.*Connection (\S+?) not found"
    ),
}

_FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+)')


@dataclass(frozen=True, slots=True)
class Broken(Finding):
    """
    A problem that Airflow would show.

    Args:
        lacks: What is missing, as ``KIND:NAME``, if another Airflow may have it.
        tail: The last lines of the traceback, from the folder's first frame on, without the error.
    """

    lacks: str = ""
    tail: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """
        Return the problem as lines of text.
        """
        kind, _, name = self.lacks.partition(":")
        missing = f" ({kind} {name} is missing here)" if kind else ""
        return [f"{self}{missing}", *(f"  {line}" for line in self.tail)]


@dataclass(frozen=True, slots=True)
class LoadAnswer:
    """
    The complete answer.

    Args:
        missing: Why Airflow cannot be imported; empty if it can.
        is_whole: Whether the program finished.
        trouble: Why a file has no verdict: a signal, or a failure of Airflow or of ``runner``.
        dags: The files that define each DAG, by its id.
    """

    missing: str
    airflow: str
    is_whole: bool
    trouble: str
    dags: Mapping[str, list[str]]
    broken: list[Broken]


def read_answer(lines: Iterable[str], folder: str, allowed: Collection[str] = ()) -> LoadAnswer:
    """
    Read the answer; its last line may be incomplete.

    Args:
        folder: The folder that was loaded.
        allowed: Patterns of what may be missing. A folder of DAGs can be named like a package, so
            the exact name of a module is also accepted if the folder has its package.
    """
    facts: dict[str, Any] = {}
    dags: dict[str, list[str]] = {}
    broken: list[Broken] = []
    trouble = ""
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            break
        facts |= said
        own = {name for name in said.get("own", ()) if f"package:{name}" not in allowed}
        # Only plugins in the folder count: the others belong to the image.
        for path, text in said.get("plugins", {}).items():
            name = _inside(path, folder)
            if name is not None and _is_ours(name, folder):
                broken.append(_broken(name, text, folder, own))
        if "file" not in said:
            continue
        name = _inside(said["file"], folder) or said["file"]
        if "failed" in said or said.get("ended", 0) < 0:
            what = said.get("failed") or ending(said["ended"])
            trouble = trouble or f"loading {name} failed: {what}"
        elif "ended" in said:
            text = f"it ends the process that loads it, with {ending(said['ended'])}"
            broken.append(Broken(name, None, text))
        for path, text in said.get("errors", {}).items():
            broken.append(_broken(_inside(path, folder) or name, text, folder, own))
        for dag in said.get("dags", ()):
            dags.setdefault(dag, []).append(name)
    for dag, (first, *others) in dags.items():
        text = f"the DAG {dag!r} is also in {first}"
        broken.extend(Broken(name, None, text) for name in others)
    return LoadAnswer(
        facts.get("missing", ""), facts.get("airflow", ""), "done" in facts, trouble, dags, broken
    )


def _inside(path: str, folder: str) -> str | None:
    """
    Return a path relative to the folder; None for a path outside it.
    """
    if not os.path.isabs(path):
        return path
    return path.removeprefix(f"{folder}/") if path.startswith(f"{folder}/") else None


def _broken(path: str, text: str, folder: str, own: Collection[str]) -> Broken:
    """
    Find the place and the cause of a problem in a traceback, or in an error without one.

    Args:
        path: The file that Airflow shows as broken.
        own: Modules that the folder lacks, rather than this Airflow.
    """
    lines = [line for line in text.replace(f"{folder}/", "").splitlines() if line.strip()]
    frames = [(number, found) for number, line in enumerate(lines) if (found := _FRAME.match(line))]
    ours = [(number, found) for number, found in frames if _is_ours(found["path"], folder)]
    # The indented source follows the last frame, then the error.
    end = frames[-1][0] + 1 if frames else 0
    while end < len(lines) - 1 and lines[end].startswith(" "):
        end += 1
    problem = " ".join(line.strip() for line in lines[end:])[:LINE_CHARACTERS]
    lacks = _lacks(problem, own)
    if ours and ours[-1][1]["path"] != path:
        problem += f" (in {ours[-1][1]['path']}:{ours[-1][1]['line']})"
    line_number = next((int(f["line"]) for _, f in reversed(ours) if f["path"] == path), None)
    tail = lines[ours[0][0] : end][-TAIL_LINES:] if ours else []
    return Broken(path, line_number, problem, lacks, tuple(one[:LINE_CHARACTERS] for one in tail))


def _is_ours(path: str, folder: str) -> bool:
    return not os.path.isabs(path) and os.path.isfile(os.path.join(folder, path))


def _lacks(problem: str, own: Collection[str]) -> str:
    """
    Return what is missing, if this Airflow may lack it rather than the folder.
    """
    for kind, pattern in LACKS.items():
        if found := pattern.search(problem):
            name = next(filter(None, found.groups()))
            is_ours = kind == "package" and name in own
            return "" if is_ours or _is_everywhere(kind, name) else f"{kind}:{name}"
    return ""


def _is_everywhere(kind: str, name: str) -> bool:
    """
    Whether a module of this name, if it existed, would be part of Python or Airflow itself.
    """
    first, _, rest = name.partition(".")
    is_airflow = first == "airflow" and bool(rest) and not rest.startswith("providers.")
    return kind == "package" and (first in sys.stdlib_module_names or is_airflow)
