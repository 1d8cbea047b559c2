"""
Child processes.
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

FOREVER = "import time; print('started', flush=True); time.sleep(600)"
FAMILY = (
    "import os, time\n"
    "if os.fork():\n    print(os.getpid(), flush=True)\n"
    "else:\n    print(os.getpid(), flush=True)\n"
    "time.sleep(600)\n"
)


class Listener:
    """Collects the output of a program, and can end it through `watch`."""

    def __init__(self) -> None:
        self.fence = Fence()
        self.out: list[str] = []
        self.err: list[str] = []
        self.stop: Exception | None = None

    def run(self, program: str, deadline_seconds: float = 60.0) -> int:
        command = Command([sys.executable, "-c", program], {}, "/")
        # Lines are appended to the lists of now: a test may replace them.
        out, err = Lines(self.out.append), Lines(self.err.append)
        return child.run(command, self.fence, deadline_seconds, out, err, self.watch)

    def watch(self) -> None:
        if self.stop and self.out:
            raise self.stop

    def end_all_as_it_is(self) -> None:
        wait_until(lambda: all(not Path(f"/proc/{pid}").exists() for pid in self.out), "gone")


@pytest.fixture
def one() -> Listener:
    return Listener()


def test_run_passes_on_output_lines_and_the_exit_code(one: Listener) -> None:
    code = one.run("import sys; print('a\\nb'); print('c', end='', file=sys.stderr); sys.exit(7)")

    assert (7, ["a", "b"], ["c"]) == (code, one.out, one.err)


def test_the_deadline_kills_the_whole_process_group(one: Listener) -> None:
    with pytest.raises(DeadlinePassed):
        one.run(FAMILY, deadline_seconds=1.5)

    assert 2 == len(one.out)
    one.end_all_as_it_is()


def test_revoking_the_fence_kills_the_process(one: Listener) -> None:
    thread = threading.Thread(
        target=lambda: (wait_until(lambda: one.out, "it started"), one.fence.revoke())
    )
    thread.start()

    with pytest.raises(CycleAbandoned):
        one.run(FOREVER)
    thread.join()

    assert ["started"] == one.out


def test_starts_no_process_under_a_revoked_fence(one: Listener, tmp_path: Path) -> None:
    one.fence.revoke()

    with pytest.raises(CycleAbandoned):
        one.run(f"open({str(tmp_path / 'made')!r}, 'w')")

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
        ("exec true", (b"", 0)),
        ("head -c 10; exec <&-; sleep 0.1", (b"x" * 10, 0)),
        # It writes while it reads: a parent that wrote all input first would wait forever.
        ("tee /dev/stderr", (b"x" * child.KEPT_BYTES, 0)),
        ("exec <&- >&- 2>&-; sleep 0.3; exit 4", (b"", 4)),
        ("sleep 600 & exit 5", (b"", 5)),
    ],
    ids=[
        "reads it all",
        "says it twice",
        "reads nothing",
        "reads some",
        "writes as it reads",
        "hears and says nothing",
        "leaves one",
    ],
)
def test_returns_output_and_exit_code_when_the_program_ends(
    script: str, answer: tuple[bytes, int]
) -> None:
    assert answer == ask(script, b"x" * 1_000_000)


@pytest.mark.parametrize(("is_head", "kept"), [(True, b"a"), (False, b"z")])
def test_keeps_the_chosen_end_of_a_long_output(is_head: bool, kept: bytes) -> None:
    given = b"a" * child.KEPT_BYTES + b"z" * child.KEPT_BYTES

    assert (kept * child.KEPT_BYTES, 0) == ask("cat", given, is_head=is_head)


# --- process 1, as in a container without an init: it inherits the orphans of its children

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
