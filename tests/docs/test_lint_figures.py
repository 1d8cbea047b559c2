"""
The figure checker finds limits of memory, time, system calls and threads, and accepts growth.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

from scripts import lint_figures

BAD = """
assert daemon.rss_mib() <= 45.5
assert 45.5 >= daemon.rss_mib()
assert daemon.rss_mib() <= MOST_MIB
assert daemon.rss_mib() <= limits.MOST_MIB
assert daemon.rss_mib() <= LIMITS.memory_mib
assert daemon.rss_mib() <= 40 + MOST_MIB / 2
assert seconds < 2
assert 2 > seconds
assert not seconds > 2
assert not (seconds >= 2 or is_late)
assert 0.1 < seconds < 2
assert sum(seconds) < 2 and is_done
assert max(waits_seconds) < 2
assert min(1.0, took) < 2
assert round(abs(took), 1) < 2
assert 2 == pytest.approx(took, abs=0.5)
assert took == pytest.approx(2)
assert 0 == pytest.approx(took, abs=0.5)
assert math.isclose(took, 2, abs_tol=0.5)
assert [] == [one for one in runs if one.elapsed > 2]
assert all(one.elapsed < 2 for one in runs)
assert event["duration_seconds"] < 2
assert daemon.metrics()["process_resident_memory_bytes"] < 40 << 20
assert daemon.metrics()['process_cpu_seconds_total{sidecar="x"}'] < 2
assert time.monotonic() - began < 3
assert time.perf_counter() < began + 3
assert time.time() - began < 3
assert (datetime.now() - began).total_seconds() < 3
assert time.process_time_ns() - began < 3e9
assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 40_000
assert tracemalloc.get_traced_memory()[1] < 8 << 20
assert cpu_seconds(daemon.pid) / took <= 0.1
assert threading.active_count() <= 3
assert len(threading.enumerate()) <= 3
assert len(os.listdir(f"/proc/{pid}/task")) < 5
assert int(Path(f"/proc/{pid}/statm").read_text().split()[1]) < 10_000
assert system_calls(pid, 60) <= 180
assert ended.syscalls < 180
assert path.stat().st_mtime - first >= 3
assert daemon.rss_mib() <= before_mib + 1
is_quick = took < 2
wait_until(lambda: daemon.rss_mib() < 40, "it is small")
if took > 2: pytest.fail("too slow")
if took > 2: raise AssertionError("too slow")
if took > 2: assert False
"""

BAD_LATER = [
    """
    before = time.monotonic()
    deed()
    gone = time.monotonic() - before
    assert gone < 3
    """,
    """
    limit = 3
    assert took < 2 * limit
    """,
    """
    _, peak = tracemalloc.get_traced_memory()
    assert peak < 8 << 20
    """,
    """
    def spent():
        return time.perf_counter() - began
    assert spent() < 3
    """,
    """
    def clock():
        return time.time()
    def gone():
        return clock() - began
    assert gone() < 3
    """,
    """
    gone = lambda: time.monotonic() - began
    assert gone() < 3
    """,
    """
    asked = []
    for _ in range(3):
        asked.append(time.monotonic())
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert max(pauses) < 2
    """,
    """
    ends = {}
    ends["x"] = daemon.events[0]["duration_seconds"]
    assert {} == {name: end for name, end in ends.items() if end > 15}
    """,
    """
    slowest = 0.0
    for _ in range(3):
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2
    """,
    """
    found = os.listdir(f"/proc/{pid}/task")
    assert len(found) < 5
    """,
]

GOOD = """
assert after_mib <= before_mib
assert daemon.rss_mib() < 1.1 * before_mib
assert time.monotonic() >= began
assert began <= published_at <= time.time()
assert time.monotonic() - began >= settings.interval_seconds
assert 0 <= event["duration_seconds"]
assert 0 < credential.expires_at - time.time()
assert grown_kib < len(sent) / 8
assert peak_bytes < 4 * report.body_bytes
assert cpu_seconds <= ended.seconds
assert ours_seconds < peers_seconds / 2
assert threading.active_count() == before
assert now_threads < threads + abandoned
assert 2 == wait_seconds
assert backoff.floor_seconds <= wait_seconds <= max(backoff.cap_seconds, interval_seconds)
assert PATIENCE.all_seconds + PATIENCE.favorite_seconds < 15
assert LONG_SECONDS < 60
assert len(server.requests) <= 4
assert len(daemon.find_events("pass_started")) <= 2
assert len(waits_seconds) > 2
assert metrics["sidecar_failures_total"] >= 1
assert said.count("took longer than 2 s") <= 1
wait_until(lambda: done, "it is done", 60)
wait_until(lambda: time.time() > (began + expiry) / 2, "half its life", timeout_seconds=90)
daemon.wait_for_exit(60)
while time.monotonic() < ends_at and took < 4: deed()
if took > 2: broken += 1
"""


def in_test(text: str) -> str:
    return f"def test_it(daemon, began):\n{indent(dedent(text), '    ')}\n"


@pytest.mark.parametrize("text", [*BAD.strip().splitlines(), *BAD_LATER])
def test_finds_limits_of_measured_figures(text: str) -> None:
    assert 1 == len(list(lint_figures.finds(in_test(text))))
    assert list(lint_figures.finds(dedent(text))), "outside a function"


@pytest.mark.parametrize("text", GOOD.strip().splitlines())
def test_accepts_growth_order_counts_settings_and_deadlines(text: str) -> None:
    assert [] == list(lint_figures.finds(in_test(text)))


def test_a_name_means_something_else_in_another_function() -> None:
    good, bad = in_test("gone = len(files)\nassert gone < 3"), in_test(BAD_LATER[0])

    assert [10] == [line for line, _ in lint_figures.finds(good + "\n" + bad)]


def test_prints_each_place_and_fails(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_text(in_test("assert daemon.rss_mib() <= 45.5"))
    good.write_text(in_test("assert daemon.rss_mib() <= before"))

    red, green = (
        subprocess.run(
            [sys.executable, lint_figures.__file__, *files], capture_output=True, text=True
        )
        for files in ((good, bad), (good,))
    )

    assert (1, f"{bad}:2: daemon.rss_mib() <= 45.5\n", "") == (
        red.returncode,
        red.stdout,
        red.stderr,
    )
    assert (0, "") == (green.returncode, green.stdout)
