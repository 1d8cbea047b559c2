"""
`make demo-airflow` keeps what it promises; with `--full`, because it takes most of a minute.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_demo_plays_every_step_and_cleans_up(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("plays beside a real Airflow: runs with make test-full")
    before = set(Path(tempfile.gettempdir()).glob("sync-perm-demo-*"))

    done = subprocess.run(
        [sys.executable, "-m", "demo.airflow"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "every step checked" in done.stdout
    assert before == set(Path(tempfile.gettempdir()).glob("sync-perm-demo-*"))
