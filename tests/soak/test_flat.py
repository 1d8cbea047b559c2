"""
What grows is told from what does not.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from soak.flat import WARM_UP_SECONDS, Sample, growth_per_hour, sample, series_of
from tests.support.waiting import wait_until


def samples(count: int = 600, **figures: Callable[[int], int]) -> list[Sample]:
    """
    One sample a second, of a process that holds the same all the time but for what is given.
    """
    steady = {
        "rss_kib": 40_000,
        "descriptors": 20,
        "threads": 6,
        "children": 0,
        "zombies": 0,
        "files": 100,
    }
    return [
        Sample(float(n), **{**steady, **{name: figure(n) for name, figure in figures.items()}})
        for n in range(count)
    ]


def flaws(of: list[Sample]) -> list[str]:
    return [name for name, series in series_of(of).items() if series.flaw]


def test_steady_process_has_no_flaw() -> None:
    noisy = samples(
        rss_kib=lambda n: 40_000 + n % 7 * 100,
        descriptors=lambda n: 20 + n % 3,
        children=lambda n: int(n % 10 == 0),
        files=lambda n: 100 + n % 60,
    )

    assert [] == flaws(noisy)


def test_connections_that_are_kept_open_are_no_leak() -> None:
    kept, leaked = (samples(descriptors=lambda n, end=end: 16 + end * n // 600) for end in (15, 40))

    assert "" == series_of(kept, connections=16)["descriptors"].flaw
    assert "" != series_of(kept)["descriptors"].flaw
    assert "" != series_of(leaked, connections=16)["descriptors"].flaw


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("memory in KiB", {"rss_kib": lambda n: 40_000 + n * 6}),
        ("descriptors", {"descriptors": lambda n: 20 + n // 100}),
        ("threads", {"threads": lambda n: 6 + n // 100}),
        ("children", {"children": lambda n: n // 400}),
        ("zombies", {"zombies": lambda n: n // 400}),
        ("files on its volume", {"files": lambda n: 100 + n}),
    ],
)
def test_what_grows_is_named(name: str, figure: dict[str, Callable[[int], int]]) -> None:
    assert [name] == flaws(samples(**figure))


def test_memory_of_the_first_minutes_does_not_count() -> None:
    warming = samples(rss_kib=lambda n: 30_000 + min(n, int(WARM_UP_SECONDS)) * 100)

    assert [] == flaws(warming)


def test_slope_is_in_mib_an_hour() -> None:
    assert 6.0 == pytest.approx(
        growth_per_hour(samples(rss_kib=lambda n: n * 6 * 1024 // 3600)), 0.1
    )
    assert growth_per_hour(samples(100)) is None


def test_sample_counts_what_a_process_holds(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "held = [open('/dev/null') for _ in range(50)]\n"
        "child = subprocess.Popen(['true'])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()

        found = wait_until(
            lambda: (seen := sample(process.pid, 7.0, tmp_path)).zombies and seen, "a zombie"
        )

        assert isinstance(found, Sample)
        assert (7.0, 1, 1, 2) == (found.seconds, found.children, found.zombies, found.files)
        assert 53 <= found.descriptors <= 56
        assert found.rss_kib > 1_000
        assert found.threads == 1
        process.communicate("")
    with pytest.raises(OSError, match=str(process.pid)):
        sample(process.pid, 0.0, None)
