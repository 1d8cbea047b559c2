"""
``sync-perm diff``: shows what the daemon would write and a prune would remove; writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from sidecar_runtime.errors import EXIT_DONE, EXIT_SETTINGS, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.printable import counted, json_text, printable
from sync_perm.airflow.passes import COMMAND_SECONDS, AirflowPasses
from sync_perm.comparison import Comparison, Look
from sync_perm.database.connection import Source
from sync_perm.database.database import Database
from sync_perm.difference import Item, Kind
from sync_perm.role_file.file import RoleFile
from sync_perm.role_file.wanted import Surplus

EXIT_DIFFERS = 4

# The list for each kind of row, and who asks for it. Broken rows are only counted.
_LISTED: Mapping[Kind, tuple[str, str]] = {
    "role": ("create_roles", "airflow"),
    "file_role": ("create_roles", "file"),
    "resource": ("create_resources", "airflow"),
    "permission": ("create_permissions", "airflow"),
    "dag_permission": ("create_permissions", "airflow"),
    "role_grant": ("grant", "airflow"),
    "dag_grant": ("grant", "access_control"),
    "file_grant": ("grant", "file"),
    "file_dag_grant": ("grant", "file"),
    "dag_revoke": ("revoke", "access_control"),
}
_GRANT = ("role", "action", "resource")
_LINES = {
    "create_roles": "+ role {role}",
    "create_resources": "+ resource {resource}",
    "create_permissions": "+ permission {action} on {resource}",
    "grant": "+ {role}: {action} on {resource}",
    "revoke": "- {role}: {action} on {resource}",
}


def run(comparison: Comparison, passes: AirflowPasses, source: Source, *, is_json: bool) -> int:
    """
    Print the differences; return the exit code.
    """
    file = comparison.file
    try:
        look = _look(comparison, passes, source)
        if file and file.problem:
            raise file.problem
    except SidecarError as error:
        return _show_error(error, file, is_json=is_json)
    facts = _facts(look)
    if is_json:
        result = "differs" if look.items else "equal"
        sys.stdout.write(json_text({"result": result, **facts}) + "\n")
    else:
        sys.stdout.write("".join(f"{printable(line)}\n" for line in _lines(look, facts)))
    return EXIT_DIFFERS if look.items else EXIT_DONE


def _look(comparison: Comparison, passes: AirflowPasses, source: Source) -> Look:
    """
    Compare the tables as the passes of the daemon do after its start.

    Raises:
        SidecarError: Airflow or the database failed.
    """
    if comparison.file:
        comparison.file.refresh()
    database = Database(source.read())
    try:
        comparison.define(passes.write_empty(database.address, Fence(), COMMAND_SECONDS))
        return comparison.look(database, ahead=comparison.file is not None)
    finally:
        database.close()


def _facts(look: Look) -> dict[str, Any]:
    """
    Return the output for programs.
    """
    listed: dict[str, list[Any]] = {name: [] for name in _LINES}
    for item in sorted(item for item in look.items if item.kind in _LISTED):
        name, asked_by = _LISTED[item.kind]
        listed[name].append({**_named(name, item), "asked_by": asked_by})
    surplus = look.wanted.surplus() if look.wanted else Surplus((), ())
    return {
        **listed,
        "broken_rows": look.tables.broken,
        "failing_dags": {d: f"{f.reason}: {f.text}" for d, f in sorted(look.failing.items())},
        "left_to_access_control": look.wanted.overruled if look.wanted else [],
        "selects_no_dag": [
            {"key": one.where.key, "line": one.where.line, one.by: one.value}
            for one in (look.wanted.idle if look.wanted else ())
        ],
        "a_prune_would_remove": {
            "roles": list(surplus.roles),
            "grants": [dict(zip(_GRANT, grant, strict=True)) for grant in surplus.grants],
        },
    }


def _named(name: str, item: Item) -> dict[str, object]:
    """
    Return a row as a mapping from the names of its parts.
    """
    parts = {
        "create_roles": _GRANT[:1],
        "create_resources": _GRANT[2:],
        "create_permissions": _GRANT[1:],
    }.get(name, _GRANT)
    return dict(zip(parts, item.row, strict=True))


def _lines(look: Look, facts: dict[str, Any]) -> Iterator[str]:
    """
    Yield the lines of the output for people.
    """
    for name, text in _LINES.items():
        yield from (f"{text.format(**row)} ({row['asked_by']})" for row in facts[name])
    if look.tables.broken:
        yield f"- {counted(look.tables.broken, 'permission')} without action or resource (airflow)"
    if not look.items:
        yield "nothing differs"
    for dag_id, text in facts["failing_dags"].items():
        yield f"? DAG {dag_id}: {text}"
    for dag_id in facts["left_to_access_control"]:
        yield f"? DAG {dag_id}: the file selects it, but its own access_control decides"
    for one in look.wanted.idle if look.wanted else ():
        yield f"? {one.where.key} (line {one.where.line}): no DAG matches {one.by} {one.value}"
    prune = facts["a_prune_would_remove"]
    if prune["roles"] or prune["grants"]:
        yield "not in the file, and kept; a prune would remove:"
        yield from (f"  role {role}" for role in prune["roles"])
        yield from ("  {role}: {action} on {resource}".format(**row) for row in prune["grants"])


def _show_error(error: SidecarError, file: RoleFile | None, *, is_json: bool) -> int:
    """
    Print the failure, with every mistake in an invalid file; return the exit code.
    """
    mistakes = file.mistakes if file and file.problem is error else ()
    texts = [f"{file.path}:{one}" for one in mistakes if file] or [error.message]
    for text in [*texts, *([error.advice] if error.advice else [])]:
        sys.stderr.write(f"sync-perm diff: {printable(text)}\n")
    if is_json:
        named = [
            {"line": one.where.line, "key": one.where.key, "error": one.problem} for one in mistakes
        ]
        facts = {"reason": error.reason, "error": error.message, "advice": error.advice}
        sys.stdout.write(json_text({"result": "failed", **facts, "mistakes": named}) + "\n")
    return EXIT_SETTINGS if mistakes else error.exit_code
