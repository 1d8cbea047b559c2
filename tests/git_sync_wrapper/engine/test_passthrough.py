"""
Passthrough mode: plain git-sync, except that no process is left behind.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import scripts
from tests.support.waiting import wait_until

RUN = """
import os, sys
from git_sync_wrapper.engine import passthrough
sys.exit(passthrough.run(sys.argv[1], sys.argv[2:], os.environ))
"""
# Sends a signal while git-sync starts, and another a number of bytecode steps later.
TWO_SIGNALS = """
import os, signal, subprocess, sys
from git_sync_wrapper.engine import passthrough

start, steps = subprocess.Popen, 0

def starting(*arguments, **options):
    global steps
    child = start(*arguments, **options)
    os.kill(os.getpid(), signal.SIGUSR1)
    steps = planned
    return child

def trace(frame, event, _):
    global steps
    if frame.f_code.co_filename != passthrough.__file__:
        return None
    frame.f_trace_opcodes = True
    if event == "opcode" and steps:
        steps -= 1
        if not steps:
            os.kill(os.getpid(), signal.SIGUSR2)
    return trace

subprocess.Popen = starting
sys.settrace(trace)
for planned in range(1, 60):
    print(passthrough.run(sys.argv[1], ["600"], os.environ))
"""


class Site:
    """A script that stands in for git-sync, and its wrappers, which end with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen = folder / "seen"
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, script: str, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        program = scripts.script(self._folder / "git-sync", script)
        child = subprocess.Popen(
            [sys.executable, "-c", RUN, program, *arguments],
            env={"PATH": os.environ["PATH"], **environ},
        )
        self._children.append(child)
        return child

    def wait_until_seen(self) -> list[str]:
        def lines() -> list[str]:
            text = self.seen.read_text() if self.seen.exists() else ""
            return text.splitlines() if text.endswith("\n") else []

        return wait_until(lines, "the program has started")

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_passes_through_arguments_environment_and_exit_code(site: Site) -> None:
    script = f'{{ echo "$@"; env; }} > {site.seen}; exit 7'
    child = site.start(
        script, "--one-time", "--x=y", GIT_SYNC_BRANCH="b", GIT_SYNC_WRAPPER_MODE="passthrough"
    )

    assert 7 == child.wait(30)
    lines = site.wait_until_seen()
    assert "--one-time --x=y" == lines[0]
    assert {"GIT_SYNC_BRANCH=b", "GITSYNC_ROOT=/git"} <= set(lines)
    assert [] == [line for line in lines if line.startswith("GIT_SYNC_WRAPPER_")]


@pytest.mark.parametrize("name", ["GITSYNC_ROOT", "GIT_SYNC_ROOT"])
def test_keeps_a_root_that_the_user_sets(site: Site, name: str) -> None:
    child = site.start(f"env > {site.seen}", **{name: "/mine"})

    child.wait(30)

    roots = [line for line in site.wait_until_seen() if "_ROOT=" in line]
    assert [f"{name}=/mine"] == roots


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_forwards_a_signal_and_exits_as_git_sync_does(site: Site, number: signal.Signals) -> None:
    child = site.start(f"echo $$ > {site.seen}; exec sleep 600")
    site.wait_until_seen()

    child.send_signal(number)

    assert 128 + number == child.wait(30)


def test_handles_a_signal_while_it_forwards_another() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TWO_SIGNALS, "/bin/sleep"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (ended.returncode, ended.stderr)
    assert {128 + signal.SIGUSR1, 128 + signal.SIGUSR2} >= set(map(int, ended.stdout.split()))


def test_ends_the_child_processes_of_git_sync(site: Site) -> None:
    child = site.start(f"sleep 600 & echo $! > {site.seen}; wait")
    [pid] = site.wait_until_seen()

    child.terminate()
    child.wait(30)

    with suppress(FileNotFoundError):  # killed, but perhaps not reaped yet by its new parent
        assert Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
