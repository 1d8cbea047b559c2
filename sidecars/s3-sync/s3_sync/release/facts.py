"""
The JSON of a release: the parts that pointer and manifest have in common. Pure.

The format, and who writes it when: docs/reference/release-format.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from s3_sync.release.rows import FILES_LIMIT, Invalid
from s3_sync.revision import is_revision
from sidecar_runtime.printable import counted

FORMAT = 2
# The rows need a third of this; the rest is for names.
MARKS_LIMIT = 20 * FILES_LIMIT
TEXT_LIMIT_CHARACTERS = 500
# The limit for the DAG ids as JSON: about 700 DAGs.
DAG_IDS_LIMIT_BYTES = 20 << 10

_SHA256 = re.compile(r"[0-9a-f]{64}")
# The fields of an origin that come from git.
_GIT = ("commit", "branch", "author", "message")


class Origin(NamedTuple):
    """
    Where a release comes from; fields that its publisher did not know are empty.

    Args:
        by: Who published: a person or a CI job.
    """

    by: str = ""
    commit: str = ""
    branch: str = ""
    author: str = ""
    message: str = ""
    ci_url: str = ""


class Checked(NamedTuple):
    """
    The result of the Airflow check of a release, before it was published.

    Args:
        airflow: The version of Airflow.
        dags: The number of DAGs.
        dag_ids: All DAG ids, sorted; empty if there are too many, or not all are known.
        files_not_loaded: How many files were not loaded, for lack of something that may be missing.
    """

    airflow: str
    at: datetime
    dags: int
    dag_ids: tuple[str, ...] = ()
    files_not_loaded: int = 0

    @property
    def knows_dags(self) -> bool:
        """
        Whether `dag_ids` has all DAG ids; they are also known if there is none.
        """
        return bool(self.dag_ids) or not (self.dags or self.files_not_loaded)

    def __str__(self) -> str:
        dags = counted(self.dags, "DAG")
        if self.files_not_loaded:
            dags += f", {counted(self.files_not_loaded, 'file')} not loaded"
        return f"Airflow {self.airflow} at {time_text(self.at)}: {dags}"


def check_marks(data: bytes) -> None:
    """
    Check that JSON can be parsed in little memory: an empty list takes two bytes as text, but 64
    in memory.

    Raises:
        Invalid: It would create too many objects.
    """
    if len(data) > MARKS_LIMIT and sum(map(data.count, (b"[", b"{", b","))) > MARKS_LIMIT:
        raise Invalid(f"it contains more than {MARKS_LIMIT} brackets and commas")


def load_json(data: bytes) -> Any:
    """
    Parse JSON strictly (RFC 8259): UTF-8, no duplicate names in an object, no NaN.

    Raises:
        Invalid: It is anything else.
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_each_once, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise Invalid(f"it is not JSON: {error}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object contains a duplicate name")
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def read_facts(data: bytes) -> dict[str, Any]:
    facts = load_json(data)
    if not isinstance(facts, dict):
        raise Invalid("it is not a JSON object")
    if facts.get("format") != FORMAT or type(facts["format"]) is not int:
        raise Invalid(f"its format is {facts.get('format')!r:.50}; this s3-sync reads {FORMAT}")
    return facts


def get(facts: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    found = facts.get(name.rpartition(".")[2])
    if type(found) is not kind:
        raise Invalid(f"{name} is missing or has the wrong type")
    return found


def read_revision(facts: Mapping[str, Any]) -> str:
    revision: str = get(facts, "revision", str)
    if not is_revision(revision):
        raise Invalid(f"{revision!r:.50} is not a revision")
    return revision


def read_sha256(facts: Mapping[str, Any], name: str) -> str:
    digest: str = get(facts, name, str)
    if not _SHA256.fullmatch(digest):
        raise Invalid(f"{name} is not 64 hexadecimal digits")
    return digest


def read_size(facts: Mapping[str, Any], name: str, limit: int, least: int = 1) -> int:
    return check_size(name, get(facts, name, int), limit, least)


def check_size(name: str, size: int, limit: int, least: int = 1) -> int:
    if not least <= size <= limit:
        raise Invalid(f"{name} is {size}; the limit is {limit}")
    return size


def read_time(facts: Mapping[str, Any], name: str) -> datetime:
    try:
        at = datetime.fromisoformat(get(facts, name, str))
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{name} is not a time") from error
    raise Invalid(f"{name} is a time without an offset")


def read_origin(facts: Mapping[str, Any], who: str) -> Origin:
    """
    Read the origin. It is only for people, so malformed fields are ignored, not refused.
    """
    git = facts.get("git")
    names = git if isinstance(git, dict) else {}

    known = {name: read_text(names, name) for name in _GIT}
    return Origin(by=read_text(facts, who), ci_url=read_text(facts, "ci_url"), **known)


def read_text(facts: Mapping[str, Any], name: str) -> str:
    """
    Read a text for people; anything else is ignored.
    """
    found = facts.get(name)
    return found[:TEXT_LIMIT_CHARACTERS] if isinstance(found, str) else ""


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def origin_facts(origin: Origin) -> dict[str, Any]:
    git = {name: getattr(origin, name) for name in _GIT}
    return {
        "git": {name: text[:TEXT_LIMIT_CHARACTERS] for name, text in git.items() if text},
        "ci_url": origin.ci_url[:TEXT_LIMIT_CHARACTERS],
    }


def read_checked(facts: Mapping[str, Any]) -> Checked | None:
    """
    Read the result of the Airflow check. It is only for people: if malformed, it is ignored.
    """
    found = facts.get("airflow")
    try:
        if not isinstance(found, dict):
            return None
        ids = found.get("dag_ids", [])
        return Checked(
            get(found, "version", str)[:TEXT_LIMIT_CHARACTERS],
            read_time(found, "checked_at"),
            get(found, "dags", int),
            tuple(ids) if isinstance(ids, list) and all(type(one) is str for one in ids) else (),
            get(found, "files_not_loaded", int),
        )
    except Invalid:
        return None


def checked_facts(checked: Checked) -> dict[str, Any]:
    ids = list(checked.dag_ids)
    return {
        "version": checked.airflow[:TEXT_LIMIT_CHARACTERS],
        "checked_at": time_text(checked.at),
        "dags": checked.dags,
        "files_not_loaded": checked.files_not_loaded,
        **({"dag_ids": ids} if ids and len(json.dumps(ids)) <= DAG_IDS_LIMIT_BYTES else {}),
    }
