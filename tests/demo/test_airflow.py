"""
`make demo-airflow` passes all its checks, and leaves no files or processes behind.

It runs only with `--full`, because it takes minutes.
"""

from __future__ import annotations

import ctypes
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

from demo.airflow import realm
from demo.airflow.descendants import PR_SET_CHILD_SUBREAPER
from tests.support.airflow.databases import skip_without_postgres
from tests.support.airflow.sync_perm import descendants_of, signal_all
from tests.support.git.git_sync import skip_reason

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "demo.airflow"]
STORY_SECONDS = 1_500
STEPS = 18


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    A folder for temporary files that the user of the database server can enter, unlike pytest's.
    """
    with tempfile.TemporaryDirectory(prefix="demo-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def environment(folder: Path) -> dict[str, str]:
    """
    Return the environment of the demo.
    """
    names = ("PATH", "HOME", "GIT_SYNC_BIN")
    given = {name: os.environ[name] for name in names if name in os.environ}
    return given | {"TMPDIR": str(folder)}


@contextmanager
def nothing_left_behind(folder: Path) -> Iterator[None]:
    """
    Fail if files or processes remain; adopt orphaned processes to find them.
    """
    prctl = ctypes.CDLL(None).prctl
    before = set(descendants_of(os.getpid()))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        left = set(descendants_of(os.getpid())) - before
        signal_all(list(left), signal.SIGKILL)
        prctl(PR_SET_CHILD_SUBREAPER, 0)
    assert set() == left
    assert [] == list(folder.iterdir())


def skip_the_story(request: pytest.FixtureRequest) -> None:
    """
    Skip without `--full`, or without a database server.
    """
    if not request.config.getoption("--full"):
        pytest.skip("plays beside a real Airflow: runs with make test-full")
    skip_without_postgres()


@pytest.mark.timeout(STORY_SECONDS + 60)
@pytest.mark.parametrize("version", ["3", "2.11"])
def test_story_passes_all_steps(request: pytest.FixtureRequest, folder: Path, version: str) -> None:
    skip_the_story(request)

    with nothing_left_behind(folder):
        done = subprocess.run(
            [*DEMO, version],
            cwd=ROOT,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=STORY_SECONDS,
        )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "all steps passed" in done.stdout
    (table,) = re.findall(r"^step .*^total .*$", done.stdout, re.MULTILINE | re.DOTALL)
    skipped = table.count("skipped: ")
    assert STEPS + 1 - skipped == len(re.findall(r" \d+\.\d\d s$", table, re.MULTILINE))
    assert 1 + 2 * bool(realm.missing()) + 2 * bool(skip_reason()) == skipped


@pytest.mark.timeout(STORY_SECONDS + 60)
def test_sigterm_during_the_story_leaves_nothing_behind(
    request: pytest.FixtureRequest, folder: Path
) -> None:
    skip_the_story(request)

    with nothing_left_behind(folder):
        process = subprocess.Popen(
            [*DEMO, "3"],
            cwd=ROOT,
            env=environment(folder),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if "sync-perm starts" in line:
                    process.terminate()
        code = process.wait(60)

    assert 143 == code
