"""
The fixtures of these tests.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_sync.stage import SNAPSHOT, Stage


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    """
    A volume on which nothing has been published.
    """
    stage = Stage(folder, **SNAPSHOT)
    yield stage
    stage.close()


@pytest.fixture
def one(stage: Stage) -> Stage:
    """
    The same with the revision r1.
    """
    stage.publish("r1", a="one", d__b="one")
    return stage


@pytest.fixture
def two(one: Stage) -> Stage:
    """
    The same with the revision r2 after it.
    """
    one.publish("r2", a="two", c="two")
    return one
