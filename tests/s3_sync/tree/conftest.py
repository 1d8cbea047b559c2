"""Fixtures for the tests of the tree."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def deep(folder: Path) -> Iterator[Path]:
    """A foreign folder with a file at its end, deeper than Python's recursion limit."""
    path = str(folder / "deep")
    os.makedirs(path)
    for _ in range(1500):
        path += "/d"
        os.mkdir(path)
    Path(path, "x.py").touch()
    yield folder / "deep"
    # pytest would remove it with a recursive function.
    subprocess.run(["rm", "-rf", str(folder / "deep")], check=True)
