"""
Child processes, and the fence that ends them and guards every publish.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sidecar_runtime import child
from sidecar_runtime.child import Command, DeadlinePassed, Kept, Lines
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.support.waiting import wait_until

# It forks; both processes print their ids, and sleep.
FAMILY = "import os, time; os.fork(); print(os.getpid(), flush=True); time.sleep(600)"


def run(
    program: str, fence: Fence, seconds: float = 60.0
) -> tuple[int, list[str], list[str]]:
    """Run a Python program; return its exit code, and the lines of both outputs."""
    out: list[str] = []
    err: list[str] = []
    command = Command([sys.executable, "-c", program], {}, "/")
    try:
        code = child.run(command, fence, seconds, Lines(out.append), Lines(err.append))
    finally:
        pids = [Path(f"/proc/{line}") for line in out if line.isdigit()]
        wait_until(lambda: not any(pid.exists() for pid in pids), "they are gone")
    return code, out, err


def test_run_passes_on_output_lines_and_the_exit_code(fence: Fence) -> None:
    program = (
        "import sys; print('a\\nb'); print('c', end='', file=sys.stderr); sys.exit(7)"
    )

    assert (7, ["a", "b"], ["c"]) == run(program, fence)


def test_the_deadline_kills_the_whole_process_group(fence: Fence) -> None:
    with pytest.raises(DeadlinePassed):
        run(FAMILY, fence, 1.5)


def test_revoking_the_fence_kills_the_process_and_allows_no_other(
    fence: Fence, tmp_path: Path
) -> None:
    program = f"open({str(tmp_path / 'made')!r}, 'w'); {FAMILY}"
    revoking = threading.Thread(
        target=lambda: (
            wait_until(lambda: os.listdir(tmp_path), "it started"),
            fence.revoke(),
        )
    )
    revoking.start()

    with pytest.raises(CycleAbandoned):
        run(program, fence)
    revoking.join()
    os.unlink(tmp_path / "made")
    with pytest.raises(CycleAbandoned):
        run(program, fence)

    assert [] == os.listdir(tmp_path)


def ask(script: str, given: bytes = b"", *, is_head: bool = False) -> tuple[bytes, int]:
    command = Command(["/bin/sh", "-c", script], {"PATH": "/usr/bin:/bin"}, "/", given)
    said = Kept(is_head=is_head)
    code = child.run(command, Fence(), 60, said)
    return said.data, code


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("wc -c", (b"1000000\n", 0)),
        ("echo a; echo b >&2; exit 3", (b"a\nb\n", 3)),
        ("head -c 10; exec <&-; sleep 0.1", (b"x" * 10, 0)),
        # It writes while it reads: a parent that wrote all input first would wait
        # forever.
        ("tee /dev/stderr", (b"x" * child.KEPT_BYTES, 0)),
        ("exec <&- >&- 2>&-; sleep 0.3; exit 4", (b"", 4)),
        ("sleep 600 & exit 5", (b"", 5)),
    ],
)
def test_returns_output_and_exit_code_when_the_program_ends(
    script: str, answer: tuple[bytes, int]
) -> None:
    assert answer == ask(script, b"x" * 1_000_000)


@pytest.mark.parametrize(("is_head", "kept"), [(True, b"a"), (False, b"z")])
def test_keeps_the_chosen_end_of_a_long_output(is_head: bool, kept: bytes) -> None:
    assert (kept * child.KEPT_BYTES, 0) == ask(
        "cat", b"a" * child.KEPT_BYTES + b"z" * child.KEPT_BYTES, is_head=is_head
    )


# Process 1, as in a container without an init, inherits the orphans of its children.
PROGRAM = """
import os, sys
from contextlib import suppress
from sidecar_runtime import child
from sidecar_runtime.fence import Fence

assert 1 == os.getpid()
scripts = ["setsid true & exec true", "sleep 600 & exec true", "sleep 600 & exec sleep 600"]
for script in scripts * 2:
    command = child.Command(["/bin/sh", "-c", script], os.environ, "/")
    with suppress(child.DeadlinePassed):
        child.run(command, Fence(), 0.5, lambda _: None)
sys.exit(str([name for name in os.listdir("/proc") if name.isdigit() and name != "1"]))
"""
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


def test_an_orphan_of_a_child_is_killed_and_reaped() -> None:
    """
    Each child runs in its own session, so its orphan is killed with its process group.
    What has left that session is reaped once it has ended.
    """
    if (
        not (shutil.which("unshare") and os.getuid() == 0)
        or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode
    ):
        pytest.skip(
            "a process namespace needs root, and a kernel or container that lets it"
        )

    assert (
        "[]\n"
        == subprocess.run(
            [*NAMESPACE, sys.executable, "-c", PROGRAM],
            cwd=Path(__file__).parents[2],
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        ).stderr
    )


# --- the fence


def test_revoke_waits_for_a_publish_in_progress_and_allows_no_other() -> None:
    patient = Fence(in_flight_seconds=30.0)
    revoking = threading.Thread(target=patient.revoke)
    with patient:
        revoking.start()
        wait_until(lambda: patient.is_revoked, "the fence is revoked")
        assert revoking.is_alive()
    revoking.join(10)

    assert not revoking.is_alive()
    with pytest.raises(CycleAbandoned), patient:
        pytest.fail("published after the end")
