"""
Tests whether a gate can run.
"""

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
    Print whether the gate can run, by having it judge a folder with a DAG that does nothing.

    It does not judge the source, which only a daemon has on disk; the daemon reports those
    verdicts.

    Args:
        name: The kind of gate, as in the settings.
        folder: Where to create a temporary folder, which is removed. None: the default location
            of temporary folders.

    Raises:
        CycleAbandoned: The fence was revoked.
    """
    if gate is None:
        say("ok", "gate", "off")
        return True
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".check-") as inside:
            os.chmod(inside, 0o755)  # noqa: S103 - the command may run as another user
            Path(inside, DAG).write_text("pass\n")
            refusal = gate.examine("check", inside, [DAG], fence)
    except OSError as error:
        say("FAIL", "gate", f"cannot write to {folder or 'TMPDIR'}: {error.strerror}")
        return False
    except SidecarError as error:
        return fail("gate", error)
    say("ok", "gate", f"{name}: it runs; only a daemon judges the source with it")
    if refusal is not None:
        say("??", "", f"it refuses a folder with a DAG that does nothing: {refusal.message}")
    return True
