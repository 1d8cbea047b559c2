"""
Fixtures for the tests of git-sync-wrapper.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git_sync_wrapper.cycling import Start
from tests.git_sync_wrapper.polling import poll, server
from tests.runtime.recording import fence, log, revoked

__all__ = ["fence", "log", "poll", "revoked", "server"]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty TMPDIR of the code under test; its path is short, because it contains a socket."""
    with tempfile.TemporaryDirectory(prefix="gsw-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS keys in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A factory of wrappers whose cycles a test runs one by one."""
    start = Start(tmp_path)
    yield start
    start.stop()
