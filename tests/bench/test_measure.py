"""
What a process costs, measured from outside.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.measure import Cost, children_of, cpu_seconds, during, least, median, rss_mib, run
from tests.support.waiting import wait_until

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """
    A process that burns CPU in a child that ends, and in one that lives, and then sleeps.
    """
    code = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
        f"subprocess.run([sys.executable, '-c', {BURN + 'time.sleep(60)'!r}])"
    )
    process = subprocess.Popen(python(code))
    yield process
    for child in children_of(process.pid):
        subprocess.run(["kill", "-9", str(child)])
    process.kill()
    process.wait()


def test_cpu_of_children_counts() -> None:
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n{BURN}"

    cost = run(python(code), ENVIRONMENT)

    assert cost.cpu_seconds >= 0.59
    assert cost.wall_seconds > 0.5


def test_memory_is_that_of_the_command_and_not_of_its_starter() -> None:
    ours = bytearray(200 << 20)
    ours[:: 1 << 12] = b"x" * len(ours[:: 1 << 12])  # resident

    small = run(["true"], ENVIRONMENT)
    large = run(python("x = b'x' * (100 << 20)"), ENVIRONMENT)

    assert small.rss_mib < 40
    assert 100 < large.rss_mib < 140


def test_failed_command_is_an_error_that_quotes_it() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 4: (?s:.*)why it failed"):
        run(["sh", "-c", "echo why it failed; exit 4"], ENVIRONMENT)


def test_exit_code_that_is_expected_is_none() -> None:
    assert run(["sh", "-c", "exit 4"], ENVIRONMENT, codes=[4]).cpu_seconds < 60


def test_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(subprocess.TimeoutExpired):
        run(
            ["sh", "-c", f"(echo $$ > {mark}; exec sleep 60) & wait"],
            ENVIRONMENT,
            timeout_seconds=1,
        )

    pid = mark.read_text().strip()

    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the child is gone")


def test_running_process_is_measured_with_its_children(sleeper: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: cpu_seconds(sleeper.pid) >= 0.55, "both children have burned")

    cost = during(sleeper.pid, lambda: time.sleep(0.05))

    assert cost.cpu_seconds < 0.5
    assert cost.wall_seconds >= 0.05
    assert cost.rss_mib == pytest.approx(rss_mib(sleeper.pid), abs=2)
    assert cost.rss_mib > rss_mib(children_of(sleeper.pid)[0])


def test_least_and_median_are_taken_of_each_figure() -> None:
    costs = [Cost(3, 1, 20), Cost(1, 2, 30), Cost(2, 9, 10)]

    assert Cost(1, 1, 10) == least(costs)
    assert Cost(2, 2, 20) == median(costs)
