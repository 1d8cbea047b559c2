"""
What is in a snapshot, on record.
"""

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.published import contents
from git_sync_wrapper.published.contents import DIGEST_CHARACTERS, LIST_BYTES, Contents, Row
from git_sync_wrapper.published.tree import opened


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "a.py").write_text("1")
    (tree / "deep/b.py").write_text("1")
    (tree / "link").symlink_to("a.py")
    (tree / ".git").write_text("gitdir: x")
    return tree


@pytest.fixture
def folder(tree: Path) -> Iterator[int]:
    with opened(str(tree)) as folder:
        yield folder


@pytest.fixture
def rows(folder: int) -> Contents:
    return contents.take(folder, {})


def test_what_is_as_it_was_is_not_read(
    rows: Contents, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"a.py", "deep/b.py", "link"} == rows.keys()
    monkeypatch.delattr(os, "read")

    assert [] == contents.damaged(rows, folder)


def test_other_times_and_more_rights_are_no_damage_and_go_on_record(
    rows: Contents, tree: Path, folder: int
) -> None:
    """What a mount with fsGroup does, another hard link, and a restore from a backup."""
    (tree / "a.py").chmod(0o664)
    os.link(tree / "deep/b.py", tree.with_name("other"))
    os.utime(tree / "link", (1, 1), follow_symlinks=False)
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__/a.pyc").touch()

    assert [] == contents.damaged(rows, folder)
    assert contents.take(folder, {}).keys() - rows.keys() == {"__pycache__/a.pyc"}
    assert rows["a.py"] == contents.take(folder, {})["a.py"]


def test_each_damage_is_named(rows: Contents, tree: Path, folder: int) -> None:
    before = (tree / "a.py").stat()
    (tree / "a.py").write_text("2")
    os.utime(tree / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tree / "deep").rename(tree / "gone")
    (tree / "link").unlink()
    (tree / "link").symlink_to("b.py")

    assert ["a.py", "deep/b.py", "link"] == contents.damaged(rows, folder)


def test_a_right_that_is_gone_is_damage(rows: Contents, tree: Path, folder: int) -> None:
    (tree / "a.py").chmod(0o600)

    assert ["a.py"] == contents.damaged(rows, folder)


def test_what_was_not_read_at_first_is_read_by_a_look(
    rows: Contents, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(os, "read")
        quick = contents.take(folder, {"a.py": rows["a.py"].digest}, reads=False)
        assert {path: row._replace(digest="") for path, row in rows.items()} | {
            "a.py": rows["a.py"]
        } == quick
        assert [] == contents.damaged(quick, folder, reads=False)

    assert [] == contents.damaged(quick, folder)
    assert rows == quick


def test_of_what_nobody_has_read_other_times_and_rights_leave_it_open(
    tree: Path, folder: int
) -> None:
    """What a mount with fsGroup does, and a new hard link."""
    quick = contents.take(folder, {}, reads=False)
    before = quick.copy()
    os.link(tree / "a.py", tree.with_name("other"))
    (tree / "deep/b.py").chmod(0o666)

    assert None is contents.damaged(quick, folder)
    assert before["a.py"] == quick["a.py"]

    (tree / "deep/b.py").write_text("2")
    assert ["deep/b.py"] == contents.damaged(quick, folder)


def test_a_file_behind_a_link_is_not_there(rows: Contents, tree: Path, folder: int) -> None:
    """The very same file, of the same times."""
    (tree / "deep").rename(tree.with_name("elsewhere"))
    (tree / "deep").symlink_to("../elsewhere")

    assert ["deep/b.py"] == contents.damaged(rows, folder)


@pytest.mark.parametrize("path", ["../{}", "/{}", "deep/../{}", "deep//b.py", "..", ".", ""])
def test_a_list_that_leads_out_of_its_folder_is_no_record(
    tree: Path, folder: int, path: str
) -> None:
    found = tree.with_name("outside.py")
    found.write_text("1")
    row = contents.take(folder, {})["a.py"]
    contents.write({"a.py": row, path.format(found.name): row}, "list", folder, fsync=False)

    assert None is contents.read("list", folder)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_a_name_that_no_file_has_is_missing(rows: Contents, folder: int, path: str) -> None:
    contents.write(rows | {path: rows["a.py"]}, "list", folder, fsync=False)

    listed = contents.read("list", folder)

    assert listed and [path] == contents.damaged(listed, folder)


def test_what_is_written_is_read_and_what_is_too_long_is_not_written(folder: int) -> None:
    row = Row(1, 2, 3, 4, "d" * DIGEST_CHARACTERS)
    room = LIST_BYTES - len(json.dumps({"": row}))
    longest = {"a" * room: row}

    unread = {path: row._replace(digest="") for path, row in longest.items()}
    for which in (unread, longest):
        assert contents.write(which, "list", folder, fsync=False)
        assert which == contents.read("list", folder)
    for too_long in (row, row._replace(digest="")):
        assert not contents.write({"a" * (room + 1): too_long}, "list", folder, fsync=False)
    assert None is contents.read("list", folder)
    assert "list" not in os.listdir(folder)


NO_MODES: list[object] = ["x", None, 0.5, 1 << 16, 10**400]
NO_RECORDS = [
    *(b"", b"{}", b"[]", b'{"a.py": 1}', b'{"a.py": [1]}'),
    *(json.dumps({"a.py": [mode, 1, 1, 1, ""]}).encode() for mode in NO_MODES),
]


@pytest.mark.parametrize("text", [*NO_RECORDS[:2], *map(zlib.compress, NO_RECORDS)], ids=range(12))
def test_what_is_no_record_says_nothing(tree: Path, folder: int, text: bytes) -> None:
    (tree / "list").write_bytes(text)

    assert contents.read("list", folder) is None
    assert contents.read("missing", folder) is None


def test_what_is_or_unpacks_to_more_than_any_list_is_no_record(tree: Path, folder: int) -> None:
    (tree / "list").write_bytes(zlib.compress(b" " * (LIST_BYTES + 1) + b"{}"))
    assert contents.read("list", folder) is None
    assert contents.write(contents.take(folder, {}), "list", folder, fsync=False)
    assert contents.read("list", folder)
    os.truncate(tree / "list", LIST_BYTES + 1)

    assert contents.read("list", folder) is None


def test_a_digest_is_taken_over_from_a_file_that_is_as_it_was(
    rows: Contents, tree: Path, folder: int
) -> None:
    before = (tree / "a.py").stat()
    assert rows["a.py"].digest == contents.digest_of("a.py", before, rows)
    assert "" == contents.digest_of("new.py", before, rows)

    (tree / "a.py").write_text("2")
    os.utime(tree / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert "" == contents.digest_of("a.py", (tree / "a.py").stat(), rows)
    known = {"a.py": "", "deep/b.py": "known"}
    taken = contents.take(folder, known)
    assert ("known", True) == (
        taken["deep/b.py"].digest,
        taken["a.py"].digest not in ("", rows["a.py"].digest),
    )
