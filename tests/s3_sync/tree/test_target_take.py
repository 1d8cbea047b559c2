"""Taking over files from another part."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.keys import RESERVED
from s3_sync.tree.target import Target, Torn
from s3_sync.tree.volume import TREE
from s3_sync.tree.walk import Blocked
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.s3_sync.tree.handling import (
    BODY,
    damaged,
    edit_file,
    link_file,
    link_folder,
    nothing,
    replace_file,
    staged,
)


def test_takes_a_file_as_a_hard_link(folder: Path, target: Target, tree: Target) -> None:
    target.take("a/b.py", tree, Fence(), nothing)

    assert os.path.samefile(folder / "a/b.py", folder / RESERVED / TREE / "a/b.py")
    assert target.managed.files == tree.managed.files
    assert (set(), set()) == (damaged(target), damaged(tree))
    assert [] == staged(folder)


def test_taking_a_file_twice_leaves_nothing_in_staging(
    folder: Path, target: Target, tree: Target
) -> None:
    """Renaming a link over another link to the same file does nothing, and leaves both."""
    target.take("a/b.py", tree, Fence(), nothing)

    target.take("a/b.py", tree, Fence(), nothing)

    assert BODY == (folder / "a/b.py").read_bytes()
    assert [] == staged(folder)


@pytest.mark.usefixtures("no_links")
def test_copies_a_file_if_hard_links_fail(folder: Path, target: Target, tree: Target) -> None:
    target.take("a/b.py", tree, Fence(), nothing)

    copy, original = folder / "a/b.py", folder / RESERVED / TREE / "a/b.py"
    assert not os.path.samefile(copy, original)
    assert copy.stat().st_mtime_ns == original.stat().st_mtime_ns
    assert target.managed.files["a/b.py"].matches(copy.stat())
    assert target.managed.files["a/b.py"].etag == tree.managed.files["a/b.py"].etag
    assert set() == damaged(target) and [] == staged(folder)


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        edit_file,
        link_file,
        link_folder,
        replace_file,
        lambda place: place.chmod(0o600),
        lambda place: place.parent.rename(place.parent.with_name("gone")),
    ],
    ids=["removed", "edit", "link", "folder linked", "replaced", "mode", "folder gone"],
)
def test_does_not_take_a_changed_file(
    folder: Path, target: Target, tree: Target, harm: Callable[[Path], object]
) -> None:
    harm(folder / RESERVED / TREE / "a/b.py")

    with pytest.raises(Torn, match=r"a/b\.py"):
        target.take("a/b.py", tree, Fence(), nothing)

    assert not (folder / "a").exists()
    assert {} == target.managed.files and [] == staged(folder)


def test_a_foreign_file_blocks_taking(folder: Path, target: Target, tree: Target) -> None:
    (folder / "a").write_bytes(b"foreign")

    with pytest.raises(Blocked):
        target.take("a/b.py", tree, Fence(), nothing)

    assert b"foreign" == (folder / "a").read_bytes()
    assert {} == target.managed.files and [] == staged(folder)


def test_takes_nothing_under_a_revoked_fence(
    folder: Path, target: Target, tree: Target, revoked: Fence
) -> None:
    with pytest.raises(CycleAbandoned):
        target.take("a/b.py", tree, revoked, nothing)

    assert not (folder / "a").exists()
    assert {} == target.managed.files and [] == staged(folder)
