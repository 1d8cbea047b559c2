"""Fixtures of the sidecar's tests."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_sync.layout.in_place import open_in_place
from s3_sync.tree import Tree
from s3_sync.volume import Volume
from tests.runtime.recording import log, revoked
from tests.s3_sync.handling import open_volume
from tests.s3_sync.process import Process
from tests.support.aws.fake_s3 import FakeS3

__all__ = ["log", "revoked"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of random length, as between retries, take their minimum."""
    monkeypatch.setattr(random, "uniform", lambda least, most: least)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The target folder; files that must not be touched can be put beside it."""
    return tmp_path / "target"


@pytest.fixture
def volume(folder: Path) -> Iterator[Volume]:
    """An open volume."""
    volume = open_volume(folder)
    yield volume
    volume.close()


@pytest.fixture
def target(volume: Volume) -> Iterator[Tree]:
    """The open target folder of the volume."""
    target = open_in_place(volume)
    yield target
    target.close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """A scripted S3, which the environment variables point to."""
    with FakeS3() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def process(s3: FakeS3, tmp_path: Path) -> Iterator[Process]:
    """A sidecar for a folder, not started."""
    (tmp_path / "dags").mkdir()
    one = Process(s3, tmp_path / "dags")
    yield one
    one.stop()
