"""
Snapshots and the link to the current one, on a real file system.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.runtime.volume.snapshot_store import STORE, Shelf, filling
from tests.support.raising import raised

# --- add


def test_add_names_a_snapshot_only_when_complete_and_does_not_show_it(shelf: Shelf) -> None:
    snapshots = shelf.begin()
    seen: list[tuple[bool, set[str]]] = []

    def fill(folder: int) -> None:
        seen.append((snapshots.has("r1"), {name[:4] for name in shelf.names()}))

    snapshots.add("r1", fill, Fence())

    assert [(False, {".r1."})] == seen and {"r1"} == shelf.names()
    assert snapshots.has("r1") and "" == snapshots.current()
    assert not os.path.lexists(shelf.link)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".r1.7",
        "missing",
        "file",
        "link",
        "list.managed",
        "r1/..",
        "r1/d",
        "..",
        "r1\0",
        "x" * 300,
        "\ud800",
    ],
)
def test_only_folders_without_a_dot_are_snapshots(shelf: Shelf, name: str) -> None:
    snapshots = shelf.make("r1")
    (shelf.store / ".r1.7").mkdir()
    (shelf.store / "r1/d").mkdir()
    (shelf.store / "file").write_text("x")
    (shelf.store / "list.managed").write_text("x")
    (shelf.store / "link").symlink_to("r1")

    assert not snapshots.has(name)
    assert ["r1"] == snapshots.revisions()


# --- show


@pytest.mark.parametrize(
    "plant",
    [
        lambda link: link.symlink_to("/etc"),
        lambda link: link.symlink_to("nowhere"),
        lambda link: link.symlink_to(STORE),
        lambda link: link.symlink_to(f"{STORE}/.."),
        lambda link: link.symlink_to(f"{STORE}/missing"),
        lambda link: link.symlink_to(f"./{STORE}/r1"),
        lambda link: link.write_text("x"),
        Path.mkdir,
    ],
    ids=["foreign", "dangling", "store", "above", "missing", "other words", "file", "folder"],
)
def test_anything_else_at_the_link_is_not_a_revision_and_is_replaced(
    shelf: Shelf, plant: Callable[[Path], object]
) -> None:
    snapshots = shelf.begin()
    snapshots.add("r1", filling("r1"), Fence())
    plant(shelf.link)
    assert "" == snapshots.current()

    snapshots.show("r1", Fence())

    assert "r1" == snapshots.current() and "r1" == (shelf.link / "a.py").read_text()


def test_a_folder_with_files_blocks_the_link(shelf: Shelf) -> None:
    snapshots = shelf.begin()
    snapshots.add("r1", filling("r1"), Fence())
    shelf.link.mkdir()
    (shelf.link / "theirs").write_text("x")

    for _ in range(2):
        error = raised(SidecarError, snapshots.show, "r1", Fence())

    assert "link_blocked" == error.reason
    assert "'current' cannot be replaced with the link: Directory not empty" in error.message
    assert "mount nothing at this path" in error.advice
    assert ["theirs"] == os.listdir(shelf.link)
