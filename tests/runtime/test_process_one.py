"""
Orphaned children of a sidecar that runs as process 1, as in a container without an init.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Each child runs in its own session, so its orphan is killed with its process group.
PROGRAM = """
import os, sys
from contextlib import suppress
from sidecar_runtime import child
from sidecar_runtime.fence import Fence

ORPHAN = ["/bin/sh", "-c", "sleep 600 & exec true"]
SLOW = ["/bin/sh", "-c", "sleep 600 & exec sleep 600"]

def ask(argv, seconds):
    child.run(child.Command(argv, os.environ, "/"), Fence(), seconds, lambda _: None)

def run():
    ask(ORPHAN, 60)

def run_in_vain():
    with suppress(child.DeadlinePassed):
        ask(SLOW, 0.3)

assert 1 == os.getpid()
for _ in range(3):
    {run}()
left = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
sys.exit(f"left: {{[open(f'/proc/{{name}}/stat').read() for name in left]}}" if left else 0)
"""
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


def _can_be_one() -> bool:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize("run", ["run", "run_in_vain"])
def test_an_orphan_of_a_child_is_killed_and_reaped(run: str) -> None:
    if not _can_be_one():
        pytest.skip("a process namespace needs root, and a kernel or container that lets it")

    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", PROGRAM.format(run=run)],
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "") == (done.returncode, done.stderr)
