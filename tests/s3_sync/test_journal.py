"""
The journal: the list of files, after kills, on a full disk, and with any kind of
damage.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3_sync import journal
from s3_sync.journal import (
    HEADER,
    NAME,
    SLACK_LINES,
    Held,
    Journal,
    read_journal,
)
from tests.runtime.recording import Log


class Files:
    """The files of an open folder, and their journal, as a Folder keeps both."""

    def __init__(self, box: Box) -> None:
        listed = read_journal(NAME, box.state_fd, box.root_fd, published=0)
        self.files = listed.files
        self.journal = Journal(NAME, box.state_fd, listed, fsync=False)

    def add(self, path: str, held: Held) -> None:
        self.journal.add(path, held)
        self.files[path] = held

    def remove(self, path: str) -> None:
        del self.files[path]
        self.journal.note(path, None)


class Box:
    """A target with its state folder and the lists in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / ".s3-sync" / NAME
        self.journal.parent.mkdir(parents=True)
        self.root_fd = os.open(folder, os.O_RDONLY)
        self.state_fd = os.open(self.journal.parent, os.O_RDONLY)
        self._lists: list[Files] = []

    def begin(self) -> Files:
        """Read the list and keep it open, as a process does at its start."""
        self._lists.append(Files(self))
        return self._lists[-1]

    def load(self, published: int = 2) -> dict[str, Held]:
        """Return the files that the next process would read."""
        return read_journal(
            NAME, self.state_fd, self.root_fd, published=published
        ).files

    def put(self, path: str, content: bytes = b"x") -> Held:
        """Create a file, as a rename would, and return its record."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        s = place.stat()
        return Held(
            f"etag-of-{content.decode()}", s.st_size, s.st_mtime_ns, s.st_ino, s.st_mode
        )

    def has(self, *paths: str) -> Files:
        """Begin a list, and publish these files."""
        files = self.begin()
        for path in paths:
            files.add(path, self.put(path))
        return files

    def lines(self) -> list[object]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def close(self) -> None:
        for one in self._lists:
            one.journal.close()
        os.close(self.root_fd)
        os.close(self.state_fd)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "target")
    yield box
    box.close()


# --- normal operation


def test_compacts_the_list_only_after_many_changes(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if closing the former one fails, as on NFS with a quota: it is closed."""
    close = os.close
    files = box.begin()
    held = box.put("a.py")
    for _ in range(SLACK_LINES // 2):
        files.add("a.py", held)
    files.journal.compact(files.files)
    assert len(box.lines()) == SLACK_LINES // 2 + 1

    for _ in range(SLACK_LINES):
        files.add("a.py", held)
    with monkeypatch.context() as nfs:
        nfs.setattr(os, "close", lambda fd: close(fd) or os.stat(""))
        files.journal.compact(files.files)

    assert len(box.lines()) == 2
    files.add("b.py", box.put("b.py"))
    assert set(box.load()) == {"a.py", "b.py"}


def test_a_line_that_cannot_be_flushed_is_taken_back(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS with a quota: what was not put must not be missed later."""
    files = box.has("a.py", "b.py")
    files.journal._fsync = True
    with monkeypatch.context() as nfs:
        nfs.setattr(os, "fsync", lambda _: os.stat(""))
        with pytest.raises(OSError, match="No such file"):
            files.add("a.py", files.files["a.py"]._replace(etag="new"))
    files.add("b.py", files.files["b.py"])

    assert files.files == box.load()


# --- kills


def test_half_a_line_at_the_end_is_ignored_and_replaced(box: Box, log: Log) -> None:
    box.has("a.py", "b.py")
    whole = box.journal.read_bytes()
    last = whole.rstrip(b"\n").rpartition(b"\n")[2]
    for cut in range(1, len(last) + 1):
        box.journal.write_bytes(whole[: -1 - cut])

        assert set(box.load()) == {"a.py"}
    assert log.events("managed_list_damaged") == []

    box.journal.write_bytes(whole[:-5])
    box.begin().add("c.py", box.put("c.py"))

    assert set(box.load()) == {"a.py", "c.py"}


@pytest.mark.parametrize("deed", ["add", "change", "remove"])
@pytest.mark.parametrize("is_done", [True, False])
def test_the_last_line_counts_if_its_action_was_done(
    box: Box, deed: str, is_done: bool
) -> None:
    files = box.has("a.py", "b.py")
    before = dict(files.files)
    path = "new.py" if deed == "add" else "a.py"
    if deed == "remove":
        files.remove(path)
        # Gone; then another owner's file got the inode.
        (box.folder / path).write_bytes(b"theirs") if is_done else None
    else:
        files.add(path, box.put(f"{path}.new")._replace(etag="second"))
        (box.folder / f"{path}.new").rename(box.folder / path) if is_done else None

    assert (files.files if is_done else before) == box.load()


@pytest.mark.parametrize("published", [1, 2])
def test_a_last_file_that_is_not_there_was_lost_if_it_is_one_of_the_published_files(
    box: Box, published: int
) -> None:
    box.has("a.py").add("new.py", Held("etag", 1, 1, 1, 0o100644))  # not on disk

    assert published == len(box.load(published))


# --- damaged and hostile lists


# GlusterFS and FUSE have inode numbers up to 2**64; a time may be before 1970.
GOOD = f'["a.py","e",1,{-(1 << 63)},{(1 << 64) - 1},1]'


@pytest.mark.parametrize(
    "line",
    ["", "{", "7", "null", "[]", '"text"', '["b.py",1]', '["b.py","e"]', '["b.py","e",1,1,1]',
     '["b.py","e",1,1,1,1,1]', '["b.py",null,1,1,1,1]', '["b.py","e","1",1,1,1]',
     '["b.py","e",true,1,1,1]', f'["b.py","e",{-(1 << 63) - 1},1,1,1]', '["b.py","e",1.5,1,1,1]',
     '["b.py","e",1,1e400,1,1]', f'["b.py","e",1,{1 << 64},1,1]', '[7,"e",1,1,1,1]',
     '[["b.py"],"e",1,1,1,1]', '["../victim","e",1,1,1,1]', '["../victim"]',
     '["a/../../victim","e",1,1,1,1]', '["/etc/passwd","e",1,1,1,1]', '[".","e",1,1,1,1]',
     '["","e",1,1,1,1]', '["b//c","e",1,1,1,1]', '[".s3-sync/lock","e",1,1,1,1]',
     '["b\\u0000c","e",1,1,1,1]', '["\\ud800","e",1,1,1,1]', "[" * 100_000, "\xff\xfe"],
)  # fmt: skip
def test_stops_at_an_invalid_line_and_reports_it(box: Box, log: Log, line: str) -> None:
    """The files listed after it count as foreign, and are adopted if they are equal."""
    box.journal.write_bytes(
        f"{json.dumps(HEADER)}\n{GOOD}\n{line}\n{GOOD.replace('a.py', 'c.py')}\n".encode(
            "latin-1"
        )
    )

    assert set(box.load()) == {"a.py"}
    damaged = log.events("managed_list_damaged")
    assert [(3, "warning")] == [(event["line"], event["level"]) for event in damaged]


def test_a_list_that_somebody_made_endless_is_read_up_to_a_limit(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.has("a.py", "b.py", "c.py")
    monkeypatch.setattr(journal, "LINES_LIMIT", 2)

    assert set(box.load()) == {"a.py", "b.py"}


def test_a_volume_that_fails_says_nothing_about_the_list() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        read_journal("managed", -1, -1, published=0)


# --- one file


def test_a_record_recognizes_its_file_and_a_copy(box: Box) -> None:
    held = box.put("a.py")
    place = box.folder / "a.py"
    copy = box.folder / "b.py"
    shutil.copy2(place, copy)

    assert held.is_like(place.stat())
    assert held.is_like(copy.stat())
    for changed in (
        held._replace(size_bytes=held.size_bytes + 1),
        held._replace(mtime_ns=held.mtime_ns + 1_000_000),
        held._replace(mode=held.mode ^ 0o100),
    ):
        assert not changed.is_like(place.stat())
