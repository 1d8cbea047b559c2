"""
Measure the cost of a process: CPU (user and system), wall time, memory.

On a busy machine, wall times double and CPU grows by 10 to 20 %, for every tool. Peers
therefore take turns in one run, and ratios compare the lowest values of several runs.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

CHILD = Path(__file__).with_name("child.py")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """
    The cost of one action of a process.

    Args:
        cpu_seconds: User and system, of the process and of all children that it waited
            for.
        wall_seconds: From start to end.
        rss_mib: The peak memory of the largest of these processes.
    """

    cpu_seconds: float
    wall_seconds: float
    rss_mib: float


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    timeout_seconds: float = 600,
    codes: Sequence[int] = (0,),
) -> Cost:
    """
    Run a command to its end and return its cost, including its start.

    Args:
        environment: The whole environment; nothing is inherited.
        codes: The expected exit codes.

    Raises:
        RuntimeError: The exit code is another one; the message has the end of the
        output. subprocess.TimeoutExpired: It did not end in time; it and its children
        were killed.
    """
    with tempfile.NamedTemporaryFile() as result, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", CHILD, result.name, *map(str, command)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
        if code not in codes:
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{command} ended with {code}: {said}")
        return Cost(*json.loads(Path(result.name).read_text()))


def cpu_seconds(pid: int) -> float:
    """
    Return the CPU seconds so far of a running process and of its children, ended or
    not.

    The precision is a nanosecond for running processes, and a tick (10 ms) for ended
    children.
    """
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    of_ended_children = (int(stat[13]) + int(stat[14])) / TICKS_PER_SECOND
    # Linux numbers the CPU clocks of processes like this: clock_getcpuclockid(3).
    total = time.clock_gettime((~pid << 3) | 2) + of_ended_children
    for child in children_of(pid):
        with contextlib.suppress(OSError):  # the child has ended
            total += cpu_seconds(child)
    return total


def rss_mib(pid: int) -> float:
    """
    Return the current memory of a running process and of its children.

    Shared pages are counted once for each process.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(
        int(line.split()[1])
        for line in status.splitlines()
        if line.startswith("VmRSS:")
    )
    total = kib / 1024
    for child in children_of(pid):
        with contextlib.suppress(OSError, StopIteration):
            total += rss_mib(child)
    return total


def children_of(pid: int) -> list[int]:
    """
    Return the running children of all threads of a process.
    """
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found


def during(pid: int, deed: Callable[[], object]) -> Cost:
    """
    Call a function and return the cost of a running process and its children during the
    call.
    """
    cpu = cpu_seconds(pid)
    began = time.monotonic()
    deed()
    wall_seconds = time.monotonic() - began
    return Cost(cpu_seconds(pid) - cpu, wall_seconds, rss_mib(pid))


def least(costs: Iterable[Cost]) -> Cost:
    """
    Return the lowest value of each figure.
    """
    return Cost(*map(min, zip(*costs, strict=True)))


def median(costs: Iterable[Cost]) -> Cost:
    """
    Return the median of each figure.
    """
    return Cost(*map(statistics.median, zip(*costs, strict=True)))
