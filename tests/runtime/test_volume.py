"""
Files, the lock, snapshots and the link to the current one, on a real file system.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar_runtime.checks import Checks
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import (
    FACTS_BYTES,
    TargetError,
    TargetLock,
    explain_os_error,
    read_file,
)
from sidecar_runtime.volume.snapshots import ASKED, Snapshots

OLD = b"old content"
NEW = b"new content, which is longer"
STORE = "own/store"
YEAR_SECONDS = 365 * 86400


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_what_a_check_tries_has_no_name_while_it_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever kills it then finds nothing of it on the volume."""
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(os.listdir(tmp_path)))

    Checks().try_folder("target", str(tmp_path), needs_symlinks=True)

    assert [[], []] == [*seen, os.listdir(tmp_path)]


def test_a_check_fails_if_a_folder_cannot_be_looked_at(tmp_path: Path) -> None:
    """As on a volume whose server is gone: the daemon cannot create it, either."""
    with pytest.raises(TargetError, match="xxx: File name too long"):
        Checks().try_folder("target", f"{tmp_path}/{'x' * 300}", needs_symlinks=False)


# --- files


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [
        (errno.ENOSPC, "target_full", "the node's disk"),
        (errno.EDQUOT, "target_full", "the node's disk"),
        (errno.EACCES, "target_denied", "fsGroup"),
        (errno.EROFS, "target_denied", "readOnly"),
        (errno.EXDEV, "target_failed", "Another volume is mounted at that path"),
        (errno.ESTALE, "target_failed", "Check the volume"),
    ],
)
def test_file_system_errors_have_a_reason_and_advice(
    number: int, reason: str, advice: str
) -> None:
    error = explain_os_error(
        OSError(number, os.strerror(number)), "cannot write '/dags/a.py'"
    )

    assert error.reason == reason
    assert advice in error.advice
    assert error.message.startswith(f"cannot write '/dags/a.py': {os.strerror(number)}")


def test_refuses_to_read_anything_but_a_regular_file(
    tmp_path: Path, folder: int
) -> None:
    (tmp_path / "real").write_bytes(NEW)
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    for name in ("link", "pipe", "folder", "missing"):
        with pytest.raises(OSError):  # noqa: PT011 - each has an error of its own
            read_file(name, FACTS_BYTES, dir_fd=folder)


def test_a_lock_writes_to_no_file_of_somebody_else(tmp_path: Path, folder: int) -> None:
    (tmp_path / "theirs").write_bytes(NEW)
    (tmp_path / "lock").hardlink_to(tmp_path / "theirs")
    (tmp_path / "link").symlink_to("nowhere")

    assert TargetLock().try_acquire("lock", folder)
    with pytest.raises(OSError, match="symbolic"):
        TargetLock().try_acquire("link", folder)

    assert NEW == (tmp_path / "theirs").read_bytes()
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_that_is_removed_while_it_is_taken_is_not_held(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process creates and takes the next one: a volume was wiped."""
    monkeypatch.setattr("fcntl.flock", lambda *_: (tmp_path / "lock").unlink())

    assert not TargetLock().try_acquire("lock", folder)


def test_a_lock_is_given_up_even_if_closing_fails(folder: int) -> None:
    """On a dead mount; the number of the file may be that of another one by then."""
    lock = TargetLock()
    assert lock.try_acquire("lock", folder)
    os.close(lock._fd or 0)

    lock.release()

    assert lock.try_acquire("lock", folder)


# --- snapshots


class Shelf:
    """A target folder with its store, and operations of a process on them."""

    def __init__(self, root: Path, root_fd: int) -> None:
        self.store = root / STORE
        self.link = root / "current"
        self.store.mkdir(parents=True)
        self._root_fd = root_fd

    def begin(self, **changes: Any) -> Snapshots:
        """Return the snapshots of the store, as a new process opens it."""
        return Snapshots(
            self._root_fd,
            os.open(STORE, os.O_RDONLY, dir_fd=self._root_fd),
            STORE,
            link="current",
            **{"retain_count": 2, "retain_seconds": 600.0, "fsync": False} | changes,
        )

    def make(self, *revisions: str, **changes: Any) -> Snapshots:
        """
        Add and show revisions one after the other; the file of each contains its name.
        """
        snapshots = self.begin(**changes)
        for revision in revisions:
            snapshots.add(revision, filling(revision), Fence())
            snapshots.swap_link(revision, Fence())
        return snapshots

    def age(self, revision: str, seconds: float) -> None:
        """Set how long ago a snapshot was replaced."""
        at = time.time() - seconds
        os.utime(self.store / revision, (at, at))

    def names(self) -> set[str]:
        """Return all entries of the store."""
        return set(os.listdir(self.store))


@pytest.fixture
def shelf(tmp_path: Path, folder: int) -> Shelf:
    return Shelf(tmp_path, folder)


def filling(content: str) -> Callable[[int], None]:
    """Return a function that fills a snapshot with one file."""

    def fill(folder: int) -> None:
        fd = os.open("a.py", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=folder)
        os.write(fd, content.encode())
        os.close(fd)

    return fill


def pruned(snapshots: Snapshots) -> set[str]:
    """
    Prune as if the current revision were the published one; return the kept snapshots.
    """
    return set(snapshots.prune(snapshots.current(), Fence()))


def test_only_folders_without_a_dot_are_snapshots(shelf: Shelf) -> None:
    snapshots = shelf.make("r1")
    (shelf.store / ".r1.7").mkdir()
    (shelf.store / "r1/d").mkdir()
    (shelf.store / "list.managed").write_text("x")
    (shelf.store / "link").symlink_to("r1")
    others = [
        "",
        ".r1.7",
        "missing",
        "link",
        "list.managed",
        "r1/..",
        "r1/d",
        "..",
        "r1\0",
        "x" * 300,
        "\ud800",
    ]

    assert [] == [name for name in others if snapshots.has(name)]
    assert ["r1"] == snapshots.revisions()


@pytest.mark.parametrize(
    "plant",
    [
        lambda link: link.symlink_to("/etc"),
        lambda link: link.symlink_to(STORE),
        lambda link: link.symlink_to(f"{STORE}/.."),
        lambda link: link.symlink_to(f"{STORE}/missing"),
        lambda link: link.symlink_to(f"./{STORE}/r1"),
        Path.mkdir,
    ],
    ids=["foreign", "store", "above", "missing", "other words", "folder"],
)
def test_anything_else_at_the_link_is_not_a_revision_and_is_replaced(
    shelf: Shelf, plant: Callable[[Path], object]
) -> None:
    snapshots = shelf.begin()
    snapshots.add("r1", filling("r1"), Fence())
    plant(shelf.link)
    shelf.link.with_name("current.next-snapshot").symlink_to("of a swap that failed")
    assert "" == snapshots.current()

    snapshots.swap_link("r1", Fence())

    assert "r1" == snapshots.current() and "r1" == (shelf.link / "a.py").read_text()


@pytest.mark.parametrize(
    ("count", "seconds", "ages", "stay"),
    [
        (2, 0.0, [99, 98, 97, 96], {"r5", "r4", "r3"}),
        (0, 600.0, [590, 10_000], {"r3", "r1"}),
        (0, 600.0, [610, 10_000], {"r3"}),
        (2, 600.0, [YEAR_SECONDS - n for n in (1, 2, 3)], {"r4", "r3", "r2"}),
    ],
    ids=["by number", "lately", "not so lately", "a clock that was set forward"],
)
def test_keeps_snapshots_by_count_or_if_replaced_recently(
    shelf: Shelf, count: int, seconds: float, ages: list[float], stay: set[str]
) -> None:
    """The ages are those of r1, r2, …; the link shows the newest revision."""
    names = [f"r{number}" for number in range(1, len(ages) + 2)]
    snapshots = shelf.make(*names, retain_count=count, retain_seconds=seconds)
    for name, age in zip(names, ages, strict=False):
        shelf.age(name, age)

    assert stay == pruned(snapshots) == pruned(snapshots) == shelf.names()
    assert names[-1] == (shelf.link / "a.py").read_text()
    shelf.link.unlink()
    assert shelf.names() == pruned(snapshots)  # one of them is the last good one


def test_keeps_the_newest_requested_snapshots(shelf: Shelf) -> None:
    """
    They are counted separately from older snapshots; their marks are removed with them.
    """
    snapshots = shelf.make("r1", "r2")
    for name in ("a1", "a2", "a3"):
        snapshots.add(f".{name}", filling(name), Fence())
        snapshots.keep_asked(f".{name}", name, Fence())
    for age, name in enumerate(("a3", "a2", "a1", "r1"), start=1):
        shelf.age(name, age)
    snapshots = shelf.begin(retain_count=1, retain_seconds=0, asked_count=2)
    (shelf.store / f"gone{ASKED}").touch()  # a crash
    snapshots.sweep()

    assert ["a3", "a2", "a1"] == snapshots.asked()
    assert {"r2", "r1", "a3", "a2"} == pruned(snapshots)
    assert {"r2", "r1", "a3", "a2", f"a3{ASKED}", f"a2{ASKED}"} == shelf.names()


def test_a_snapshot_that_nobody_may_open_holds_up_no_other(shelf: Shelf) -> None:
    snapshots = shelf.make("1", "2", "3", "4", retain_count=0, retain_seconds=0)
    (shelf.store / "1").chmod(0)
    shelf.store.chmod(0o777)
    shelf.link.parent.chmod(0o755)
    os.seteuid(os.getuid() or 65534)  # root may open it
    try:
        assert "2" == snapshots.drop_oldest(Fence())
        assert {"4"} == pruned(snapshots)
    finally:
        os.seteuid(os.getuid())


def test_a_clock_that_was_set_back_keeps_no_snapshot_indefinitely(shelf: Shelf) -> None:
    """A replacement time in the future counts as now."""
    snapshots = shelf.make("r1", "r2", retain_count=0)
    shelf.age("r1", -86400)

    assert {"r1", "r2"} == pruned(snapshots)
    assert (shelf.store / "r1").stat().st_mtime <= time.time()
    shelf.age("r1", 601)
    assert {"r2"} == pruned(snapshots)
