"""Fixtures for the tests of the tree."""

from collections.abc import Iterator

import pytest

from s3_sync.tree.target import Target
from s3_sync.tree.volume import TREE, Volume
from tests.s3_sync.tree.handling import put


@pytest.fixture
def tree(volume: Volume) -> Iterator[Target]:
    """A part that consumers do not read, with one file."""
    tree = Target(volume, file_mode=0o644, part=TREE)
    put(tree, "a/b.py")
    yield tree
    tree.close()
