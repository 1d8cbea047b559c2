"""Looking at a folder: its files, damaged ones, and those of others."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.folder.folder import Folder
from tests.s3_sync.folder.handling import (
    BODY,
    damaged,
    edit_file,
    entry_of,
    link_file,
    link_folder,
    put,
    replace_file,
)


def test_holds_a_file_with_the_expected_content_size_and_mode(folder: Path, target: Folder) -> None:
    (folder / "a.py").write_bytes(BODY)
    os.chmod(folder / "a.py", 0o644)
    (folder / "d").mkdir()

    assert target.holds("a.py", entry_of("a.py"))
    for content in (b"Print('hello')\n", b"longer than that\n"):
        assert not target.holds("a.py", entry_of("a.py", content))
    for path in ("missing/a.py", "a.py/below", "d"):
        assert not target.holds(path, entry_of(path))
    for mode, is_held in ((0o600, False), (0o664, True)):  # the kubelet's, for an fsGroup
        os.chmod(folder / "a.py", mode)
        assert is_held == target.holds("a.py", entry_of("a.py"))


def test_does_not_hold_a_file_behind_a_symlink(folder: Path, target: Folder, outside: Path) -> None:
    (outside / "b.py").write_bytes(BODY)
    os.chmod(outside / "b.py", 0o644)
    (folder / "d").symlink_to(outside)
    (folder / "b.py").symlink_to(outside / "b.py")

    assert not target.holds("d/b.py", entry_of("b.py"))
    assert not target.holds("b.py", entry_of("b.py"))


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda place: place.chmod(0o600),
        lambda place: os.truncate(place, 1),
        lambda place: os.utime(place, ns=(1, 1)),
        lambda place: place.parent.rename(place.parent.with_name("gone")),
        edit_file,
        link_file,
        link_folder,
        lambda place: link_folder(place.parent),
        replace_file,
        lambda place: (place.unlink(), place.mkdir()),
    ],
    ids=["removed", "mode", "cut", "time", "folder gone", "edit", "link", "folder linked",
         "upper folder linked", "replaced", "folder"],
)  # fmt: skip
def test_any_change_to_a_published_file_is_damage(
    folder: Path, target: Folder, harm: Callable[[Path], object]
) -> None:
    put(target, "a/b/c.py")
    put(target, "other.py")
    assert set() == damaged(target)

    harm(folder / "a/b/c.py")

    assert {"a/b/c.py"} == damaged(target)


def test_foreign_files_exclude_ours_bytecode_and_system_files(
    folder: Path, target: Folder, outside: Path
) -> None:
    put(target, "a/b.py")
    for path in (
        "a/x", "y", "__pycache__/p", "a/__pycache__/p", "lost+found/f", ".nfs0001", "d/.s3-sync/s",
        "__pycache__.py",
    ):  # fmt: skip
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    (folder / "a/link").symlink_to(outside)
    (folder / "dangling").symlink_to("nowhere")

    assert ["__pycache__.py", "a/link", "a/x", "d/.s3-sync/s", "dangling", "y"] == sorted(
        target.foreign()
    )
