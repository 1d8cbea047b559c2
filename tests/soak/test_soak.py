"""
`make soak` for some seconds: no flaws, a result for each sidecar, and no files left behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.git.git_sync import skip_without_git_sync
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SHORT = ("s3-sync", "git-sync-wrapper", "kerberos")
"""The sidecars that need no Airflow."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    A folder for temporary files that the user of the database server can enter, unlike pytest's.
    """
    with tempfile.TemporaryDirectory(prefix="soak-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextmanager
def soaking(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """
    Run a soak whose temporary files are in a folder of the test.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "soak", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=120)


def mounts(folder: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.timeout(900)
def test_a_short_soak_finds_no_flaws_and_leaves_nothing_behind(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    is_full = request.config.getoption("--full")
    names = (*SHORT, "sync-perm") if is_full else SHORT
    minutes = "5" if is_full else "0.1"

    with soaking(folder, "--minutes", minutes, "--seed", "5", "-v", "--only", *names) as process:
        output, _ = process.communicate(timeout=800)

    assert 0 == process.returncode, output
    assert "0 flaws." in output
    for name in names:
        assert f"{name}: skipped" in output or re.search(rf"\| {name} \| [1-9]", output), output
    assert [] == list(folder.iterdir())
    assert [] == mounts(folder)


def test_interrupt_leaves_nothing_behind(folder: Path) -> None:
    skip_without_git_sync()
    with soaking(folder, "--only", "git-sync-wrapper", "-v") as process:
        wait_until(lambda: any(folder.glob("soak-git-*/volume/*/root/repo")), "it has begun", 60)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)

    assert 128 + signal.SIGINT == process.returncode, output
    assert [] == list(folder.iterdir())
    assert [] == mounts(folder)
