"""
The check of a gate: whether it can judge at all.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from sidecar_runtime.checks import fail, say
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import Gate

DAG = "dag.py"


def try_gate(gate: Gate | None, name: str, folder: str | None, fence: Fence) -> bool:
    """
    Print whether the gate can be run: it is given a folder with one DAG that does nothing.

    It is not asked about the source, which only a daemon has on disk: that says what its gate has
    decided.

    Args:
        name: What the settings call it.
        folder: Where a folder may be made for it; nothing is left behind. None: where temporary
            ones are.

    Raises:
        CycleAbandoned: The fence was revoked.
    """
    if gate is None:
        say("ok", "gate", "off")
        return True
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".check-") as inside:
            os.chmod(inside, 0o755)  # noqa: S103 - its command may be another user's
            Path(inside, DAG).write_text("pass\n")
            refusal = gate.examine("check", inside, [DAG], fence)
    except OSError as error:
        say("FAIL", "gate", f"nothing can be written to {folder or 'TMPDIR'}: {error.strerror}")
        return False
    except SidecarError as error:
        return fail("gate", error)
    say("ok", "gate", f"{name}: it can be run; only a daemon asks it about the source")
    if refusal is not None:
        say("??", "", f"it refuses a folder with one DAG that does nothing: {refusal.message}")
    return True
