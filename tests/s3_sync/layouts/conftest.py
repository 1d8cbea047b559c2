"""The fixtures of these tests."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.s3_sync.stage import SNAPSHOT, Begin, Stage


@pytest.fixture
def begin(folder: Path) -> Iterator[Begin]:
    """Begins with a layout, and ends with the test."""
    with ExitStack() as stages:
        yield lambda **environ: stages.enter_context(closing(Stage(folder, **environ)))


@pytest.fixture
def stage(begin: Begin) -> Stage:
    """A volume on which nothing has been published."""
    return begin(**SNAPSHOT)


@pytest.fixture
def one(stage: Stage) -> Stage:
    """The same with the revision r1."""
    stage.publish("r1", a="one", d__b="one")
    return stage


@pytest.fixture
def two(one: Stage) -> Stage:
    """The same with the revision r2 after it."""
    one.publish("r2", a="two", c="two")
    return one
