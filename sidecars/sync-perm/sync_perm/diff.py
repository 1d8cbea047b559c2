"""
``sync-perm diff``: prints the comparison, which is what the daemon would write; writes nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from sidecar_runtime.errors import EXIT_DONE, EXIT_SETTINGS, SidecarError, json_text, printable
from sync_perm.connection import Source
from sync_perm.cycle import Scope
from sync_perm.passes import Passes

EXIT_DIFFERS = 4


def run(scope: Scope, passes: Passes, source: Source, *, is_json: bool) -> int:
    """
    Print the differences; return the exit code.
    """
    file = scope.file
    try:
        look = scope.look_once(source.read(), passes if file else None)
        if file and file.problem:
            raise file.problem
    except SidecarError as error:
        mistakes = file.mistakes if file and file.problem is error else ()
        texts = [f"{file.path}:{one}" for one in mistakes if file] or [error.message]
        for text in filter(None, [*texts, error.advice]):
            sys.stderr.write(f"sync-perm diff: {printable(text)}\n")
        if is_json:
            facts = {"reason": error.reason, "error": error.message, "advice": error.advice}
            named = [one._asdict() for one in mistakes]
            sys.stdout.write(json_text({"result": "failed", **facts, "mistakes": named}) + "\n")
        return EXIT_SETTINGS if mistakes else error.exit_code
    items = sorted(look.items)
    failing = {d: f"{one.reason}: {one.text}" for d, one in look.difference.failing.items()}
    if is_json:
        told: dict[str, Any] = {"result": "differs" if items else "equal"}
        told["rows"] = [one._asdict() for one in items]
        sys.stdout.write(json_text({**told, "failing_dags": failing, "notes": look.notes}) + "\n")
    else:
        lines = [f"{'-' if i.kind == 'dag_revoke' else '+'} {i.kind}: {i}" for i in items]
        lines += [] if items else ["nothing differs"]
        lines += [f"? DAG {dag_id}: {text}" for dag_id, text in sorted(failing.items())]
        lines += [f"? {note}" for note in look.notes]
        sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    return EXIT_DIFFERS if items else EXIT_DONE
