"""Fixtures for the tests of folders."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


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
