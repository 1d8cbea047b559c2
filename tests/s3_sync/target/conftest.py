"""
The fixtures of these tests.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_sync.target.target import Target
from s3_sync.target.volume import TREE, Volume
from sidecar_runtime.fence import Fence
from tests.s3_sync.target.handling import put


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """
    A folder beside the target, with a file that nobody may touch.
    """
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.py").write_bytes(b"victim")
    return outside


@pytest.fixture
def revoked() -> Fence:
    fence = Fence()
    fence.revoke()
    return fence


@pytest.fixture
def tree(volume: Volume) -> Iterator[Target]:
    """
    A part that is no consumer's business, with one file.
    """
    tree = Target(volume, file_mode=0o644, part=TREE)
    put(tree, "a/b.py")
    yield tree
    tree.close()
