"""
`make bench` with few files: it measures, and prints every part of the page.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bench.measure import run
from bench.pages.report import PAGE
from tests.docs.code import ROOT
from tests.support.git.git_sync import skip_without_git_sync

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
TWICE = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n{BURN}"


@pytest.mark.usefixtures("only_in_full")
def test_short_run_prints_every_part_of_the_page() -> None:
    skip_without_git_sync()
    few = ["--files", "20", "--polls", "20", "--turns", "1", "--reads", "1", "--rounds", "1"]

    done = subprocess.run(
        [sys.executable, "-m", "bench", "git-sync-wrapper", *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    places = re.findall(r"<!-- bench:(git-sync-wrapper) (.+) -->", PAGE.read_text())
    parts = re.findall(r"^# (git-sync-wrapper), (.+)$", done.stdout, re.MULTILINE)
    assert sorted(places) == sorted(parts)
    assert re.search(
        r"^\| poll without a change, CPU: .* ≤ 1/50 \| 1/[\d.]+ \|", done.stdout, re.MULTILINE
    )


def test_measured_cpu_includes_child_processes() -> None:
    once, twice = (
        run([sys.executable, "-I", "-S", "-c", code], {"PATH": "/usr/bin:/bin"})
        for code in (BURN, TWICE)
    )

    assert twice.cpu_seconds > 1.5 * once.cpu_seconds
