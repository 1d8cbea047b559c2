"""
``sync-perm diff``: prints the comparison, which is what the daemon would write; writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from sidecar_runtime.errors import EXIT_DONE, EXIT_SETTINGS, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.printable import json_text, printable
from sync_perm.compare import Kind
from sync_perm.connection import Source
from sync_perm.cycle import Look, Scope
from sync_perm.database import Database
from sync_perm.passes import COMMAND_SECONDS, Means, Passes, Portion
from sync_perm.roles import RoleFile

EXIT_DIFFERS = 4

# The list for each kind of row, and who asks for it.
_LISTED: Mapping[Kind, tuple[str, str]] = {
    "file_role": ("create_roles", "file"),
    "dag_permission": ("create_permissions", "airflow"),
    "dag_grant": ("grant", "access_control"),
    "file_grant": ("grant", "file"),
    "file_dag_grant": ("grant", "file"),
    "dag_revoke": ("revoke", "access_control"),
}
_PARTS = {
    "create_roles": ("role",),
    "create_permissions": ("action", "resource"),
    "grant": ("role", "action", "resource"),
    "revoke": ("role", "action", "resource"),
}
_LINES = {
    "create_roles": "+ role {role} ({asked_by})",
    "create_permissions": "+ permission {action} on {resource} ({asked_by})",
    "grant": "+ {role}: {action} on {resource} ({asked_by})",
    "revoke": "- {role}: {action} on {resource} ({asked_by})",
}


def run(scope: Scope, passes: Passes, source: Source, *, is_json: bool) -> int:
    """
    Print the differences; return the exit code.
    """
    file = scope.file
    try:
        look = look_once(scope, passes, source)
        if file and file.problem:
            raise file.problem
    except SidecarError as error:
        return _show_error(error, file, is_json=is_json)
    facts = _facts(look)
    if is_json:
        result = "differs" if look.items else "equal"
        sys.stdout.write(json_text({"result": result, **facts}) + "\n")
        return EXIT_DIFFERS if look.items else EXIT_DONE
    lines = [text.format(**row) for name, text in _LINES.items() for row in facts[name]]
    lines += [] if look.items else ["nothing differs"]
    lines += [f"? DAG {dag_id}: {text}" for dag_id, text in facts["failing_dags"].items()]
    lines += [
        f"? DAG {dag_id}: the file selects it, but its own access_control decides"
        for dag_id in facts["left_to_access_control"]
    ]
    lines += [
        f"? {one.where.key} (line {one.where.line}): no DAG matches {one.by} {one.value}"
        for one in look.wanted.idle
    ]
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    return EXIT_DIFFERS if look.items else EXIT_DONE


def look_once(scope: Scope, passes: Passes, source: Source) -> Look:
    """
    Compare the tables as the daemon does; with a roles file, Airflow is asked what it defines.

    Raises:
        SidecarError: Airflow or the database failed.
    """
    address = source.read()
    defined = None
    if scope.file:
        scope.file.refresh()
        means = Means(address, Fence(), COMMAND_SECONDS)
        defined = passes.run(Portion(load=True), means).defined
    with Database(address) as database:
        return scope.look(database, defined)


def _facts(look: Look) -> dict[str, Any]:
    """
    Return the output for programs.
    """
    listed: dict[str, list[dict[str, str]]] = {name: [] for name in _PARTS}
    for item in sorted(look.items):
        name, asked_by = _LISTED[item.kind]
        named = dict(zip(_PARTS[name], item.row, strict=True))
        listed[name].append({**named, "asked_by": asked_by})
    failing = look.difference.failing
    return {
        **listed,
        "failing_dags": {d: f"{one.reason}: {one.text}" for d, one in sorted(failing.items())},
        "left_to_access_control": list(look.wanted.overruled),
        "selects_no_dag": [
            {"key": one.where.key, "line": one.where.line, one.by: one.value}
            for one in look.wanted.idle
        ],
    }


def _show_error(error: SidecarError, file: RoleFile | None, *, is_json: bool) -> int:
    """
    Print the failure, with every mistake in an invalid file; return the exit code.
    """
    mistakes = file.mistakes if file and file.problem is error else ()
    texts = [f"{file.path}:{one}" for one in mistakes if file] or [error.message]
    for text in [*texts, *([error.advice] if error.advice else [])]:
        sys.stderr.write(f"sync-perm diff: {printable(text)}\n")
    if is_json:
        named = [{"line": one.line, "key": one.key, "error": one.problem} for one in mistakes]
        facts = {"reason": error.reason, "error": error.message, "advice": error.advice}
        sys.stdout.write(json_text({"result": "failed", **facts, "mistakes": named}) + "\n")
    return EXIT_SETTINGS if mistakes else error.exit_code
