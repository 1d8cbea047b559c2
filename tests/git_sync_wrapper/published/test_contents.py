"""
The recorded list of a snapshot's files.
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
def store(tmp_path: Path) -> Iterator[int]:
    with opened(str(tmp_path)) as store:
        os.fchmod(store, 0o755)
        yield store


@pytest.fixture
def rows(folder: int) -> Contents:
    return contents.take(folder, {})


def test_does_not_read_unchanged_files(
    rows: Contents, folder: int, store: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"a.py", "deep/b.py", "link"} == rows.keys()
    monkeypatch.delattr(os, "read")

    assert [] == contents.damaged(rows, folder, store)


def test_changed_times_and_added_rights_are_recorded_and_not_damage(
    rows: Contents, tree: Path, folder: int, store: int
) -> None:
    """A mount with fsGroup, another hard link, and a restore from a backup cause these."""
    (tree / "a.py").chmod(0o664)
    os.link(tree / "deep/b.py", tree.with_name("other"))
    os.utime(tree / "link", (1, 1), follow_symlinks=False)
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__/a.pyc").touch()

    assert [] == contents.damaged(rows, folder, store)
    assert contents.take(folder, {}).keys() - rows.keys() == {"__pycache__/a.pyc"}
    assert rows["a.py"] == contents.take(folder, {})["a.py"]


def test_reports_each_damaged_or_missing_file(
    rows: Contents, tree: Path, folder: int, store: int
) -> None:
    before = (tree / "a.py").stat()
    (tree / "a.py").write_text("2")
    os.utime(tree / "a.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tree / "deep").rename(tree / "gone")
    (tree / "link").unlink()
    (tree / "link").symlink_to("b.py")

    assert ["a.py", "deep/b.py", "link"] == contents.damaged(rows, folder, store)


def test_a_removed_right_is_damage(rows: Contents, tree: Path, folder: int, store: int) -> None:
    (tree / "a.py").chmod(0o600)

    assert ["a.py"] == contents.damaged(rows, folder, store)


@pytest.mark.parametrize(("closed", "damaged"), [(".", 4), ("deep", 2), ("deep/down", 1)])
@pytest.mark.parametrize("mode", [0o000, 0o700, 0o711])
def test_files_in_a_closed_folder_are_damaged_if_the_store_is_open(
    tree: Path, folder: int, store: int, closed: str, damaged: int, mode: int
) -> None:
    """A file system without modes closes both."""
    (tree / "deep/down").mkdir()
    (tree / "deep/down/c.py").touch()
    rows = contents.take(folder, {})
    (tree / closed).chmod(mode)

    assert damaged == len(contents.damaged(rows, folder, store) or ())

    (tree / closed).chmod(0o700)
    os.fchmod(store, 0o700)
    assert [] == contents.damaged(rows, folder, store)
    (tree / closed).chmod(0o755)


def test_an_inspection_reads_the_files_that_were_not_read_before(
    rows: Contents, folder: int, store: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(os, "read")
        quick = contents.take(folder, {"a.py": rows["a.py"].digest}, reads=False)
        assert {path: row._replace(digest="") for path, row in rows.items()} | {
            "a.py": rows["a.py"]
        } == quick
        assert [] == contents.damaged(quick, folder, store, reads=False)

    assert [] == contents.damaged(quick, folder, store)
    assert rows == quick


def test_cannot_judge_unread_files_with_new_ctime_or_added_rights(
    tree: Path, folder: int, store: int
) -> None:
    """A mount with fsGroup and a new hard link cause these."""
    quick = contents.take(folder, {}, reads=False)
    before = quick.copy()
    os.link(tree / "a.py", tree.with_name("other"))
    (tree / "deep/b.py").chmod(0o666)

    assert None is contents.damaged(quick, folder, store)
    assert before["a.py"] == quick["a.py"]

    (tree / "deep/b.py").write_text("2")
    assert ["deep/b.py"] == contents.damaged(quick, folder, store)


def test_a_file_behind_a_symlink_counts_as_missing(
    rows: Contents, tree: Path, folder: int, store: int
) -> None:
    """Even though it is the same file, with the same times."""
    (tree / "deep").rename(tree.with_name("elsewhere"))
    (tree / "deep").symlink_to("../elsewhere")

    assert ["deep/b.py"] == contents.damaged(rows, folder, store)


@pytest.mark.parametrize("path", ["../{}", "/{}", "deep/../{}", "deep//b.py", "..", ".", ""])
def test_ignores_a_list_with_unsafe_paths(tree: Path, folder: int, path: str) -> None:
    found = tree.with_name("outside.py")
    found.write_text("1")
    row = contents.take(folder, {})["a.py"]
    contents.write({"a.py": row, path.format(found.name): row}, "list", folder, fsync=False)

    assert None is contents.read("list", folder)


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_reports_an_impossible_name_as_missing(
    rows: Contents, folder: int, store: int, path: str
) -> None:
    contents.write(rows | {path: rows["a.py"]}, "list", folder, fsync=False)

    listed = contents.read("list", folder)

    assert listed and [path] == contents.damaged(listed, folder, store)


def test_a_list_round_trips_unless_it_is_too_long(folder: int) -> None:
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
def test_ignores_an_invalid_or_missing_list(tree: Path, folder: int, text: bytes) -> None:
    (tree / "list").write_bytes(text)

    assert contents.read("list", folder) is None
    assert contents.read("missing", folder) is None


def test_ignores_a_list_that_is_too_large_packed_or_unpacked(tree: Path, folder: int) -> None:
    (tree / "list").write_bytes(zlib.compress(b" " * (LIST_BYTES + 1) + b"{}"))
    assert contents.read("list", folder) is None
    assert contents.write(contents.take(folder, {}), "list", folder, fsync=False)
    assert contents.read("list", folder)
    os.truncate(tree / "list", LIST_BYTES + 1)

    assert contents.read("list", folder) is None


def test_reuses_the_digest_of_unchanged_files_only(rows: Contents, tree: Path, folder: int) -> None:
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
