"""Fixtures of the layout tests."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.s3_sync.stage import SNAPSHOT, Begin, Stage


@pytest.fixture
def begin(folder: Path) -> Iterator[Begin]:
    """A function that opens a volume with a layout; the test's end closes it."""
    with ExitStack() as stages:
        yield lambda **environ: stages.enter_context(closing(Stage(folder, **environ)))


@pytest.fixture
def stage(begin: Begin) -> Stage:
    """A volume without a published revision."""
    return begin(**SNAPSHOT)


@pytest.fixture
def one(stage: Stage) -> Stage:
    """The same volume with revision r1 published."""
    stage.publish("r1", a="one", d__b="one")
    return stage


@pytest.fixture
def two(one: Stage) -> Stage:
    """The same volume with revision r2 published after r1."""
    one.publish("r2", a="two", c="two")
    return one
