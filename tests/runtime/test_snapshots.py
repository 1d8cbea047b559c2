"""
Complete copies side by side, and the link that shows one of them, on a real file system.
"""

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar_runtime import snapshots as module
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.snapshots import Snapshots, link_file, link_tree, remove_tree
from tests.runtime.recording import Log

STORE = "own/store"


class Shelf:
    """
    A root with its store, and what a process does with them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / STORE
        self.link = root / "current"
        self.store.mkdir(parents=True)
        self.root_fd = os.open(root, os.O_RDONLY)
        self.store_fd = os.open(self.store, os.O_RDONLY)

    def begin(self, **changes: Any) -> Snapshots:
        """
        Begin as a process does.
        """
        arguments = {"retain_count": 2, "retain_seconds": 600.0, "fsync": False} | changes
        return Snapshots(self.root_fd, self.store_fd, STORE, link="current", **arguments)

    def make(self, *revisions: str, **changes: Any) -> Snapshots:
        """
        Show one revision after the other; each has its name as content.
        """
        snapshots = self.begin(**changes)
        for revision in revisions:
            snapshots.add(revision, filling(revision), Fence())
            snapshots.show(revision, Fence())
        return snapshots

    def age(self, revision: str, seconds: float) -> None:
        """
        Let a snapshot have been replaced that long ago.
        """
        at = time.time() - seconds
        os.utime(self.store / revision, (at, at))

    def names(self) -> set[str]:
        """
        All that is in the store.
        """
        return set(os.listdir(self.store))

    def close(self) -> None:
        os.close(self.root_fd)
        os.close(self.store_fd)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "root")
    yield shelf
    shelf.close()


def filling(content: str) -> Callable[[int], None]:
    """
    What fills a snapshot with one file.
    """

    def fill(folder: int) -> None:
        fd = os.open("a.py", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=folder)
        os.write(fd, content.encode())
        os.close(fd)

    return fill


def pruned(snapshots: Snapshots) -> set[str]:
    """
    What stays when it is pruned while the link shows what is published.
    """
    return set(snapshots.prune(snapshots.current(), Fence()))


def revoked() -> Fence:
    fence = Fence()
    fence.revoke()
    return fence


# --- making


def test_nobody_sees_a_snapshot_that_is_made(shelf: Shelf) -> None:
    snapshots = shelf.begin()

    snapshots.add("r1", filling("one"), Fence())

    assert snapshots.has("r1") and "" == snapshots.current()
    assert {"r1"} == shelf.names() and not os.path.lexists(shelf.link)


def test_a_snapshot_has_its_name_only_when_it_is_full(shelf: Shelf) -> None:
    snapshots = shelf.begin()
    seen: list[tuple[bool, set[str]]] = []

    def fill(folder: int) -> None:
        seen.append((snapshots.has("r1"), {name[:4] for name in shelf.names()}))

    snapshots.add("r1", fill, Fence())

    assert [(False, {".r1."})] == seen and {"r1"} == shelf.names()


@pytest.mark.parametrize("error", [OSError("full"), CycleAbandoned(), KeyboardInterrupt()])
def test_a_snapshot_that_cannot_be_filled_leaves_nothing(
    shelf: Shelf, error: BaseException
) -> None:
    def fill(folder: int) -> None:
        filling("half")(folder)
        raise error

    with pytest.raises(type(error)):
        shelf.begin().add("r1", fill, Fence())

    assert set() == shelf.names()


def test_no_snapshot_is_made_under_a_revoked_fence(shelf: Shelf) -> None:
    with pytest.raises(CycleAbandoned):
        shelf.begin().add("r1", filling("one"), revoked())

    assert set() == shelf.names()


def test_what_a_crash_of_the_same_process_number_left_is_replaced(shelf: Shelf) -> None:
    left = shelf.store / f".r1.{os.getpid()}"
    left.mkdir()
    (left / "old").write_text("x")

    shelf.make("r1")

    assert ["a.py"] == os.listdir(shelf.link)


@pytest.mark.parametrize("kind", ["link", "dangling", "file", "empty folder"])
def test_what_was_planted_at_the_name_of_a_snapshot_makes_way(
    shelf: Shelf, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "outside").mkdir()
    place = shelf.store / "r1"
    if kind == "file":
        place.write_text("x")
    elif kind == "empty folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / ("outside" if kind == "link" else "nowhere"))

    shelf.make("r1")

    assert "r1" == (shelf.link / "a.py").read_text()
    assert [] == os.listdir(tmp_path / "outside") and not place.is_symlink()


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


# --- showing


def test_the_link_shows_one_after_the_other(shelf: Shelf) -> None:
    for revision in ("r1", "r2", "r3"):
        snapshots = shelf.make(revision)

        assert f"{STORE}/{revision}" == os.readlink(shelf.link)
        assert revision == (shelf.link / "a.py").read_text() == snapshots.current()
    assert {"r1", "r2", "r3"} == shelf.names()


def test_showing_what_is_shown_changes_nothing(shelf: Shelf) -> None:
    snapshots = shelf.make("r1")
    shelf.age("r1", 1000)
    before = (shelf.store / "r1").stat().st_mtime

    snapshots.show("r1", Fence())

    assert "r1" == snapshots.current() and {"r1"} == shelf.names()
    assert before == (shelf.store / "r1").stat().st_mtime


def test_the_link_is_swapped_in_one_step(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    At every moment somebody who opens the link finds all of one revision.
    """
    snapshots = shelf.make("r1", "r2")
    seen: list[str] = []
    calls = {name: getattr(os, name) for name in ("rename", "symlink", "unlink", "utime", "rmdir")}

    def looking(name: str) -> Callable[..., None]:
        def call(*arguments: Any, **keywords: Any) -> None:
            seen.append((shelf.link / "a.py").read_text())
            calls[name](*arguments, **keywords)
            seen.append((shelf.link / "a.py").read_text())

        return call

    for name in calls:
        monkeypatch.setattr(os, name, looking(name))
    snapshots.show("r1", Fence())

    assert {"r1", "r2"} == set(seen) and seen == sorted(seen, reverse=True)
    assert "r1" == seen[-1] == seen[-1] and 1 == seen.count("r1")


def test_nothing_is_shown_under_a_revoked_fence(shelf: Shelf) -> None:
    snapshots = shelf.make("r1")
    snapshots.add("r2", filling("r2"), Fence())

    with pytest.raises(CycleAbandoned):
        snapshots.show("r2", revoked())

    assert "r1" == snapshots.current()


def test_a_half_made_link_of_a_predecessor_is_swept(shelf: Shelf) -> None:
    """
    Killed between the making of the link and its rename.
    """
    (shelf.store / ".current.1.0").symlink_to("nowhere")

    shelf.make("r1").sweep()

    assert "r1" == (shelf.link / "a.py").read_text() and {"r1"} == shelf.names()


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
def test_what_is_in_place_of_the_link_shows_nothing_of_ours_and_makes_way(
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
        with pytest.raises(SidecarError) as caught:
            snapshots.show("r1", Fence())

    assert "link_blocked" == caught.value.reason
    assert "'current' cannot make way for the link: Directory not empty" in caught.value.message
    assert "mount nothing there" in caught.value.advice
    assert ["theirs"] == os.listdir(shelf.link)


@pytest.mark.parametrize("fsync", [True, False])
def test_names_are_flushed_before_the_link_shows_them_and_then_the_link(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    snapshots = shelf.begin(fsync=fsync)
    snapshots.add("r1", filling("r1"), Fence())
    seen: list[tuple[int, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append((fd, os.path.lexists(shelf.link))))

    snapshots.show("r1", Fence())

    expected = [(shelf.store_fd, False), (shelf.root_fd, True)] if fsync else []
    assert expected == seen


def test_a_link_that_cannot_be_made_leaves_the_old_one(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = shelf.make("r1")
    snapshots.add("r2", filling("r2"), Fence())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "symlink", full)
    with pytest.raises(OSError, match="No space left"):
        snapshots.show("r2", Fence())

    assert "r1" == snapshots.current()


# --- whether it is the same folder


def test_tells_a_snapshot_from_another_folder_of_its_name(shelf: Shelf) -> None:
    snapshots = shelf.make("r1")
    fd = os.open(shelf.store / "r1", os.O_RDONLY)
    assert snapshots.is_folder("r1", fd)

    (shelf.store / "r1").rename(shelf.store / "r2")
    assert not snapshots.is_folder("r1", fd) and snapshots.is_folder("r2", fd)
    (shelf.store / "r1").mkdir()
    assert not snapshots.is_folder("r1", fd)
    (shelf.store / "r1").rmdir()
    (shelf.store / "r1").symlink_to("r2")
    assert not snapshots.is_folder("r1", fd)
    os.close(fd)


# --- retaining


def test_so_many_older_ones_stay(shelf: Shelf) -> None:
    snapshots = shelf.make("r1", "r2", "r3", "r4", "r5", retain_seconds=0.0)
    for number in range(1, 5):
        shelf.age(f"r{number}", 100 - number)

    assert {"r5", "r4", "r3"} == pruned(snapshots) == shelf.names()


@pytest.mark.parametrize(("age", "stays"), [(590, True), (610, False)])
def test_those_stay_that_were_replaced_lately(shelf: Shelf, age: int, stays: bool) -> None:
    snapshots = shelf.make("r1", "r2", "r3", retain_count=0, retain_seconds=600.0)
    shelf.age("r1", age)
    shelf.age("r2", 10_000)

    expected = {"r3", "r1"} if stays else {"r3"}
    assert expected == pruned(snapshots) == shelf.names()


def test_the_age_counts_from_the_replacement_and_not_from_the_making(shelf: Shelf) -> None:
    """
    What was shown for a week is still read by who resolved the link a moment ago.
    """
    snapshots = shelf.make("r1", retain_count=0)
    shelf.age("r1", 7 * 86400)

    shelf.make("r2")
    pruned(snapshots)

    assert {"r1", "r2"} == shelf.names()


def test_those_replaced_last_stay_and_not_those_made_last(shelf: Shelf) -> None:
    snapshots = shelf.make("r1", "r2", "r3", retain_count=1, retain_seconds=0.0)
    shelf.age("r2", 50)
    shelf.age("r3", 40)
    shelf.age("r1", 30)
    snapshots.show("r1", Fence())  # back again: r3 is the one replaced last

    assert {"r1", "r3"} == pruned(snapshots) == shelf.names()
    assert ["r3"] == [name for name in snapshots.revisions() if name != "r1"]


def test_nothing_is_retained_where_that_is_asked(shelf: Shelf) -> None:
    snapshots = shelf.make("r1", "r2", "r3", retain_count=0, retain_seconds=0.0)
    shelf.age("r1", 1)
    shelf.age("r2", 1)

    assert {"r3"} == pruned(snapshots)
    assert "r3" == (shelf.link / "a.py").read_text()


@pytest.mark.parametrize("to", ["r1", "nowhere", ""])
def test_what_is_published_stays_whatever_the_link_shows(shelf: Shelf, to: str) -> None:
    """
    And what the link shows stays too: somebody sees it.
    """
    snapshots = shelf.make("r1", "r2", "r3", retain_count=0, retain_seconds=0.0)
    for number in range(1, 4):
        shelf.age(f"r{number}", 1000)
    shelf.link.unlink()
    if to:
        shelf.link.symlink_to(f"{STORE}/{to}")

    expected = {"r3", "r1"} if to == "r1" else {"r3"}
    assert expected == set(snapshots.prune("r3", Fence())) == shelf.names()


def test_nothing_is_published_yet_and_what_is_there_is_old(shelf: Shelf) -> None:
    snapshots = shelf.begin(retain_count=1, retain_seconds=0.0)
    for number in range(1, 4):
        snapshots.add(f"r{number}", filling("x"), Fence())
        shelf.age(f"r{number}", 1000 - number)

    assert ["r3"] == snapshots.prune("", Fence())
    assert {"r3"} == shelf.names()


def test_pruning_twice_is_pruning_once(shelf: Shelf) -> None:
    snapshots = shelf.make("r1", "r2", "r3", "r4")
    for number in range(1, 4):
        shelf.age(f"r{number}", 1000 - number)

    assert pruned(snapshots) == pruned(snapshots) == {"r4", "r3", "r2"}


def test_a_clock_that_was_set_back_keeps_no_snapshot_for_ever(shelf: Shelf) -> None:
    """
    What was replaced in the future is taken for replaced now.
    """
    snapshots = shelf.make("r1", "r2", retain_count=0)
    shelf.age("r1", -86400)

    assert {"r1", "r2"} == pruned(snapshots)
    assert abs(time.time() - (shelf.store / "r1").stat().st_mtime) < 60
    shelf.age("r1", 601)
    assert {"r2"} == pruned(snapshots)


def test_a_clock_that_was_set_forward_keeps_those_that_are_counted(shelf: Shelf) -> None:
    snapshots = shelf.make("r1", "r2", "r3", "r4")
    for number in range(1, 4):
        shelf.age(f"r{number}", 365 * 86400 - number)

    assert {"r4", "r3", "r2"} == pruned(snapshots)


def test_an_abandoned_cycle_prunes_nothing(shelf: Shelf) -> None:
    snapshots = shelf.make("r1", "r2", retain_count=0, retain_seconds=0.0)
    shelf.age("r1", 1)

    with pytest.raises(CycleAbandoned):
        snapshots.prune("r2", revoked())

    assert {"r1", "r2"} == shelf.names()


def test_an_abandoned_cycle_and_its_successor_make_the_same_revision_in_each_others_way(
    shelf: Shelf,
) -> None:
    """
    A thread that comes back late shares the process, its number and the store with the next one.
    """
    late, successor = shelf.begin(), shelf.begin()

    def fill(folder: int) -> None:
        successor.add("r1", filling("successor"), Fence())
        filling("late")(folder)

    with pytest.raises(OSError, match="not empty"):
        late.add("r1", fill, Fence())

    assert "successor" == (shelf.store / "r1/a.py").read_text()
    assert {"r1"} == shelf.names()


def test_a_snapshot_goes_in_one_step(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Killed half-way, what is left is swept, and is never taken for a snapshot.
    """
    snapshots = shelf.make("r1", "r2", retain_count=0, retain_seconds=0.0)
    shelf.age("r1", 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "remove_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        pruned(snapshots)
    monkeypatch.undo()

    assert ["r2"] == snapshots.revisions()
    assert 2 == len(shelf.names())
    shelf.begin().sweep()
    assert {"r2"} == shelf.names()


def test_what_cannot_be_removed_is_named_and_stops_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    snapshots = shelf.make("r1", "r2", "r3", retain_count=0, retain_seconds=0.0)
    shelf.age("r1", 2)
    shelf.age("r2", 1)
    unlink = os.unlink

    def refuse(name: str, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None and name == "a.py" and (shelf.store / "r1").exists():
            raise PermissionError(errno.EACCES, "Permission denied", name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    assert {"r3"} == pruned(snapshots)
    monkeypatch.undo()

    assert log.events("leftover_kept")
    assert ["r3"] == snapshots.revisions()
    shelf.begin().sweep()
    assert {"r3"} == shelf.names()


def test_pruning_follows_no_symlink(shelf: Shelf, tmp_path: Path) -> None:
    snapshots = shelf.make("r1", "r2", retain_count=0, retain_seconds=0.0)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.py").write_text("victim")
    (shelf.store / "r1/inside").symlink_to(tmp_path / "outside")
    (shelf.store / "linked").symlink_to(tmp_path / "outside")
    shelf.age("r1", 1)

    pruned(snapshots)
    snapshots.sweep()

    assert "victim" == (tmp_path / "outside/a.py").read_text()
    assert {"r2", "linked"} == shelf.names()


# --- sweeping and removing


def test_what_a_crash_left_is_swept_and_nothing_else(shelf: Shelf, tmp_path: Path) -> None:
    snapshots = shelf.make("r1", "r2")
    (shelf.store / ".r3.7/d").mkdir(parents=True)
    (shelf.store / ".r3.7/d/a.py").write_text("x")
    (shelf.store / ".file").write_text("x")
    (shelf.store / ".link").symlink_to(tmp_path)
    (shelf.store / "r1.managed").write_text("x")

    snapshots.sweep()

    assert {"r1", "r2", "r1.managed"} == shelf.names()
    assert tmp_path.exists() and "r2" == snapshots.current()


def test_all_is_removed_the_link_first(shelf: Shelf) -> None:
    snapshots = shelf.make("r1", "r2")
    (shelf.store / "r1.managed").write_text("x")

    snapshots.remove_all()

    assert set() == shelf.names() and not os.path.lexists(shelf.link)


@pytest.mark.parametrize("kind", ["link", "folder", "missing"])
def test_what_is_not_our_link_stays_when_all_is_removed(shelf: Shelf, kind: str) -> None:
    snapshots = shelf.make("r1")
    shelf.link.unlink()
    if kind == "link":
        shelf.link.symlink_to("/etc")
    elif kind == "folder":
        shelf.link.mkdir()

    snapshots.remove_all()

    assert set() == shelf.names()
    assert os.path.lexists(shelf.link) == (kind != "missing")


def test_a_tree_is_removed_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.py").write_text("victim")
    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/d/link").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    fd = os.open(tmp_path, os.O_RDONLY)

    for name in ("tree", "link", "missing"):
        remove_tree(name, fd)

    assert ["outside"] == os.listdir(tmp_path)
    assert "victim" == (tmp_path / "outside/a.py").read_text()
    os.close(fd)


# --- linking

ODD = [
    "a b.py",
    "ü/日本.py",
    "e\u0301/new\nline.py",
    'quote"\\.py',
    "-rf/--.py",
    "a/x.py",
    "a.b/x.py",
    "a-b/x.py",
    "a0",
    "a/b/c/d/e.py",
    "a/b.c/x",
    "a/b/y",
    "~/.hidden/.py",
]


class Pair:
    """
    A source with files, and an empty target beside it.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        source.mkdir()
        target.mkdir()
        self.source_fd = os.open(source, os.O_RDONLY)
        self.target_fd = os.open(target, os.O_RDONLY)

    def make(self, *paths: str) -> None:
        for path in paths:
            place = self.source / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(path)
            os.utime(place, ns=(1, 1_234_567_890_123_456_789))
            place.chmod(0o444)

    def link(self, *paths: str, fsync: bool = False) -> dict[str, os.stat_result]:
        return dict(link_tree(self.source_fd, self.target_fd, paths, fsync=fsync))

    def tree(self) -> dict[str, str]:
        found = {}
        for here, _, files in os.walk(self.target):
            for name in files:
                place = Path(here, name)
                found[str(place.relative_to(self.target))] = place.read_text()
        return found

    def close(self) -> None:
        os.close(self.source_fd)
        os.close(self.target_fd)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path / "source", tmp_path / "target")
    yield pair
    pair.close()


def refusing(number: int) -> Callable[..., None]:
    """
    An `os.link` of a file system that has none, or no more.
    """

    def link(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return link


def test_a_tree_is_linked_whatever_its_names(pair: Pair) -> None:
    pair.make(*ODD)
    before = os.listdir("/proc/self/fd")

    found = pair.link(*ODD)

    assert {path: path for path in ODD} == pair.tree()
    for path in ODD:
        assert (pair.source / path).samefile(pair.target / path)
        assert os.path.samestat(found[path], (pair.target / path).stat())
    assert sorted(ODD) == list(found)
    assert before == os.listdir("/proc/self/fd")


def test_only_what_is_asked_for_is_linked(pair: Pair) -> None:
    pair.make("a/b.py", "a/foreign.py", "foreign/c.py")

    pair.link("a/b.py")

    assert {"a/b.py": "a/b.py"} == pair.tree()
    assert ["a"] == os.listdir(pair.target)


@pytest.mark.parametrize(
    "number", [errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS]
)
def test_files_are_copied_where_there_can_be_no_link(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pair.make(*ODD)
    monkeypatch.setattr(os, "link", refusing(number))

    pair.link(*ODD)

    assert {path: path for path in ODD} == pair.tree()
    for path in ODD:
        copy, original = (pair.target / path).stat(), (pair.source / path).stat()
        assert not os.path.samestat(copy, original)
        assert 1 == copy.st_nlink
        assert (copy.st_mtime_ns, copy.st_mode) == (original.st_mtime_ns, original.st_mode)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EROFS])
def test_other_failures_are_failures(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pair.make("d/a.py")
    monkeypatch.setattr(os, "link", refusing(number))
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match=os.strerror(number)):
        pair.link("d/a.py")

    assert {} == pair.tree()
    assert before == os.listdir("/proc/self/fd")


def test_files_are_copied_to_another_mount(tmp_path: Path) -> None:
    """
    The kernel's own EXDEV.
    """
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    target = other / f"snapshots-{os.getpid()}"
    pair = Pair(tmp_path / "source", target)
    try:
        pair.make("d/a.py")
        found = pair.link("d/a.py")["d/a.py"]

        assert {"d/a.py": "d/a.py"} == pair.tree()
        assert (pair.source / "d/a.py").stat().st_mtime_ns == found.st_mtime_ns
    finally:
        pair.close()
        shutil.rmtree(target)


def test_a_file_with_too_many_links_is_copied(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.make("a.py", "b.py")
    link = os.link

    def limited(source: str, *rest: Any, **keywords: Any) -> None:
        if source == "a.py":
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, *rest, **keywords)

    monkeypatch.setattr(os, "link", limited)
    pair.link("a.py", "b.py")

    assert [1, 2] == [(pair.target / name).stat().st_nlink for name in ("a.py", "b.py")]


def test_a_big_file_is_copied_whole_and_big_modes_too(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair.source / "big").write_bytes(bytes(range(256)) * 10_000)
    (pair.source / "big").chmod(0o640)
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    mask = os.umask(0o077)
    try:
        pair.link("big")
    finally:
        os.umask(mask)

    assert (pair.source / "big").read_bytes() == (pair.target / "big").read_bytes()
    assert 0o640 == stat.S_IMODE((pair.target / "big").stat().st_mode)


@pytest.mark.parametrize("is_copied", [False, True])
def test_symlinks_planted_in_the_source_are_not_followed(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_copied: bool
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (pair.source / "folder").symlink_to(tmp_path / "outside")
    (pair.source / "file").symlink_to(tmp_path / "outside/secret")
    if is_copied:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))

    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        pair.link("folder/secret")
    if is_copied:
        with pytest.raises(OSError, match="Too many levels"):
            pair.link("file")
        assert [] == os.listdir(pair.target)
    else:  # a link to the link, which the caller tells by its facts
        assert stat.S_ISLNK(pair.link("file")["file"].st_mode)


def test_a_symlink_planted_in_the_target_is_not_followed(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    pair.make("d/a.py")
    (pair.target / "d").symlink_to(tmp_path / "outside")

    with pytest.raises(FileExistsError):
        pair.link("d/a.py")

    assert [] == os.listdir(tmp_path / "outside")


@pytest.mark.parametrize("kind", ["fifo", "folder", "missing"])
def test_what_is_no_file_is_not_copied(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "fifo":
        os.mkfifo(pair.source / "a.py")
    elif kind == "folder":
        (pair.source / "a.py").mkdir()
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))

    with pytest.raises(OSError, match=r"not a regular file|No such file|Is a directory"):
        link_file("a.py", pair.source_fd, "a.py", pair.target_fd)

    assert [] == os.listdir(pair.target)


def test_what_is_there_is_not_overwritten(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.make("a.py")
    (pair.target / "a.py").write_text("theirs")

    for _ in range(2):
        with pytest.raises(FileExistsError):
            link_file("a.py", pair.source_fd, "a.py", pair.target_fd)
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))

    assert {"a.py": "theirs"} == pair.tree()


@pytest.mark.parametrize("is_copied", [False, True])
def test_every_folder_is_flushed_once_it_is_full(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, is_copied: bool
) -> None:
    paths = ["a.py", "d/b.py", "d/e/c.py", "f/d.py"]
    pair.make(*paths)
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    if is_copied:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))

    pair.link(*paths, fsync=True)

    expected = [f"{pair.target}{folder}" for folder in ("/d/e", "/d", "/f", "")]
    assert expected == [path for path in flushed if not path.endswith(".py")]
    if is_copied:  # a link has been flushed as the file that it is, a copy not yet
        assert {str(pair.target / path) for path in paths} <= set(flushed)


def test_nothing_is_flushed_where_that_is_not_asked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.make("d/a.py")
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)

    pair.link("d/a.py")

    assert [] == flushed
