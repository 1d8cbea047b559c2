"""
`make bench` measures all processes of a tool, and prints its figures beside their budgets.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.budgets import at_most_part, none_of
from bench.measure import run
from bench.report import deliver

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
TWICE = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n{BURN}"


def test_measured_cpu_includes_child_processes() -> None:
    once, twice = (
        run([sys.executable, "-I", "-S", "-c", code], {"PATH": "/usr/bin:/bin"})
        for code in (BURN, TWICE)
    )

    assert twice.cpu_seconds > 1.5 * once.cpu_seconds


def test_write_replaces_the_part_of_one_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench:a -->\nold\n<!-- end -->\nafter\n")
    outcomes = [at_most_part("poll", "vs. b", 1 / 4, 1 / 2), none_of("reads", "all", 0, 9, 9)]

    deliver("a", {}, outcomes, {"b": "1.2"}, page=page)

    printed, written = capsys.readouterr().out, page.read_text()
    for row in ("| ≤ 1/4 | 0.5 | 200% | **missed** |", "| 0 of 9 | 0 of 9 |  | met |"):
        assert row in printed and row in written
    assert page.read_text().endswith("; b 1.2.\n<!-- end -->\nafter\n")
