"""
Every effect on the target folder, and none outside it.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3_sync.keys import RESERVED
from s3_sync.listing.pages import Entry
from s3_sync.target import download as download_module
from s3_sync.target.download import Download
from s3_sync.target.target import SECOND_NS, Target, Torn, list_name, read_target
from s3_sync.target.volume import STAGING, TREE, Volume
from s3_sync.target.walk import Blocked
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log

BODY = b"print('hello')\n"


def entry_of(path: str, content: bytes = BODY) -> Entry:
    return Entry(f"dags/{path}", hashlib.md5(content).hexdigest(), len(content))


def nothing(_: str) -> bool:
    return False


def download_of(target: Target, content: bytes = BODY) -> Download:
    download = Download("dags/key", len(content), target.open_staging)
    download.write(content)
    return download


def put(target: Target, path: str, content: bytes = BODY) -> bool:
    """
    Publish one file, as a cycle does.
    """
    entry = entry_of(path, content)
    return target.publish(path, entry, download_of(target, content), Fence(), nothing)


def staged(folder: Path) -> list[str]:
    return os.listdir(folder / RESERVED / STAGING)


def damaged(target: Target) -> set[str]:
    return target.damaged(iter(list(target.managed.files)))


@contextmanager
def opened(
    folder: Path, *, file_mode: int = 0o644, fsync: bool = False, part: str = ""
) -> Iterator[Target]:
    """
    Open the target as the next process does.
    """
    volume = Volume(str(folder), fsync=fsync)
    target = Target(volume, file_mode=file_mode, part=part)
    yield target
    target.close()
    volume.close()


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


# --- opening


def test_closing_leaves_no_descriptor(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with opened(folder, part="above/tree") as target:
        put(target, "a/b/c.py")
        put(target, "a/b/c.py", b"other")
        target.delete("a/b/c.py", Fence())

    assert before == os.listdir("/proc/self/fd")


def test_a_target_that_cannot_be_opened_leaves_no_descriptor(folder: Path, volume: Volume) -> None:
    (folder / RESERVED / "above").mkdir()
    (folder / RESERVED / "above/tree").write_bytes(b"a file, not a folder")
    before = os.listdir("/proc/self/fd")

    for _ in range(3):
        with pytest.raises(OSError, match="Not a directory"):
            Target(volume, file_mode=0o644, part="above/tree")

    assert before == os.listdir("/proc/self/fd")


# --- publishing


def test_publishes_the_content_and_remembers_it(folder: Path, target: Target) -> None:
    assert put(target, "a/b/c.py")

    assert BODY == (folder / "a/b/c.py").read_bytes()
    held = target.managed.files["a/b/c.py"]
    assert held.matches((folder / "a/b/c.py").stat())
    assert (entry_of("a/b/c.py").etag, len(BODY)) == (held.etag, held.size_bytes)
    assert [] == staged(folder)
    assert set() == damaged(target)


def test_replaces_a_file_as_a_whole(folder: Path, target: Target) -> None:
    put(target, "a.py", b"old")
    with (folder / "a.py").open("rb") as reader:
        put(target, "a.py", b"new and longer")

        assert b"old" == reader.read()
    assert b"new and longer" == (folder / "a.py").read_bytes()


@pytest.mark.parametrize("fsync", [True, False])
def test_a_big_file_goes_from_staging_to_its_place(
    folder: Path, fsync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "MEMORY_BYTES", 4)
    with opened(folder, file_mode=0o640, fsync=fsync) as target:
        download = download_of(target)
        assert download.staging is not None and len(staged(folder)) == 1

        assert target.publish("d/a.py", entry_of("d/a.py"), download, Fence(), nothing)

    found = (folder / "d/a.py").stat()
    assert BODY == (folder / "d/a.py").read_bytes()
    assert 0o640 == stat.S_IMODE(found.st_mode)
    assert [] == staged(folder) and download.staging.fd == -1


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o755])
@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_files_have_the_mode_of_the_settings_under_any_umask(
    folder: Path, mode: int, mask: int
) -> None:
    before = os.umask(mask)
    try:
        with opened(folder, file_mode=mode) as target:
            put(target, "a.py")
    finally:
        os.umask(before)

    assert mode == stat.S_IMODE((folder / "a.py").stat().st_mode)


def test_a_file_that_has_the_content_already_is_kept_with_its_time(
    folder: Path, target: Target
) -> None:
    (folder / "a.py").write_bytes(BODY)
    os.chmod(folder / "a.py", 0o644)
    os.utime(folder / "a.py", (1_000_000_000, 1_000_000_000))
    inode = (folder / "a.py").stat().st_ino

    assert not put(target, "a.py")

    found = (folder / "a.py").stat()
    assert (inode, 1_000_000_000) == (found.st_ino, found.st_mtime)
    assert target.managed.files["a.py"].matches(found)


@pytest.mark.parametrize("difference", ["content", "size", "mode", "link to the same", "fifo"])
def test_a_foreign_file_at_the_place_of_a_key_is_replaced(
    folder: Path, target: Target, outside: Path, difference: str
) -> None:
    place = folder / "a.py"
    place.write_bytes({"content": b"Print('hello')\n", "size": b"x"}.get(difference, BODY))
    os.chmod(place, 0o600 if difference == "mode" else 0o644)
    if difference == "link to the same":
        place.unlink()
        (outside / "same").write_bytes(BODY)
        place.symlink_to(outside / "same")
    elif difference == "fifo":
        place.unlink()
        os.mkfifo(place, 0o644)

    assert put(target, "a.py")

    assert BODY == place.read_bytes()
    assert not place.is_symlink()
    assert set() == damaged(target)


@pytest.mark.parametrize("below", ["", "b/"])
def test_a_symlink_in_the_way_is_replaced_and_not_followed(
    folder: Path, target: Target, outside: Path, below: str, log: Log
) -> None:
    (outside / "b").mkdir()
    (folder / "d").symlink_to(outside)

    assert put(target, f"d/{below}a.py")

    assert b"victim" == (outside / "a.py").read_bytes() and [] == os.listdir(outside / "b")
    assert BODY == (folder / f"d/{below}a.py").read_bytes()
    assert ["d"] == [event["path"] for event in log.events("symlink_replaced")]


def test_a_symlink_at_the_place_of_a_file_is_replaced_and_not_followed(
    folder: Path, target: Target, outside: Path, log: Log
) -> None:
    (folder / "a.py").symlink_to(outside / "a.py")

    assert put(target, "a.py")

    assert b"victim" == (outside / "a.py").read_bytes()
    assert BODY == (folder / "a.py").read_bytes() and not (folder / "a.py").is_symlink()
    assert ["a.py"] == [event["path"] for event in log.events("symlink_replaced")]


def test_nothing_is_published_under_a_revoked_fence(
    folder: Path, target: Target, revoked: Fence
) -> None:
    put(target, "old.py")
    (folder / "same.py").write_bytes(BODY)
    os.chmod(folder / "same.py", 0o644)
    listed = sorted(os.listdir(folder))
    acts: list[Callable[[], object]] = [
        lambda: target.publish("a/n.py", entry_of("n"), download_of(target), revoked, nothing),
        lambda: target.publish("same.py", entry_of("n"), download_of(target), revoked, nothing),
        lambda: target.adopt("same.py", entry_of("same.py"), revoked),
        lambda: target.delete("old.py", revoked),
        lambda: target.forget("old.py", revoked),
        lambda: target.end_cycle(revoked),
    ]

    for act in acts:
        with pytest.raises(CycleAbandoned):
            act()

    assert listed == sorted(os.listdir(folder))
    assert ["old.py"] == list(target.managed.files)
    assert [] == staged(folder)


def test_a_failed_rename_leaves_the_old_file_and_its_record(folder: Path, target: Target) -> None:
    put(target, "a.py", b"old")
    before = target.managed.files["a.py"]
    download = download_of(target)
    download.staging = target.open_staging()
    os.unlink(download.staging.name, dir_fd=target._staging)

    with pytest.raises(FileNotFoundError):
        target.publish("a.py", entry_of("a.py"), download, Fence(), nothing)

    assert b"old" == (folder / "a.py").read_bytes()
    assert before == target.managed.files["a.py"]


# --- what is in the way


def test_a_foreign_file_where_a_folder_must_be_blocks(folder: Path, target: Target) -> None:
    (folder / "d").write_bytes(b"somebody's")

    with pytest.raises(Blocked):
        put(target, "d/a.py")

    assert b"somebody's" == (folder / "d").read_bytes()
    assert [] == staged(folder)
    assert {} == target.managed.files
    assert target.is_blocked("d/a.py", nothing)


def test_a_foreign_file_inside_a_folder_blocks_a_file(folder: Path, target: Target) -> None:
    put(target, "d/ours.py")
    (folder / "d/theirs.py").write_bytes(b"x")

    with pytest.raises(Blocked):
        put(target, "d")

    assert ["ours.py", "theirs.py"] == sorted(os.listdir(folder / "d"))
    assert ["d/ours.py"] == list(target.managed.files)
    assert target.is_blocked("d", nothing)


def test_our_own_folder_makes_way_for_a_file(folder: Path, target: Target) -> None:
    put(target, "d/a.py")
    put(target, "d/e/b.py")
    (folder / "d/e/__pycache__").mkdir()
    (folder / "d/e/__pycache__/b.pyc").write_bytes(b"x")

    assert put(target, "d")

    assert BODY == (folder / "d").read_bytes()
    assert ["d"] == list(target.managed.files)


def test_our_own_file_makes_way_for_a_folder(folder: Path, target: Target) -> None:
    put(target, "d")

    assert put(target, "d/a.py")

    assert BODY == (folder / "d/a.py").read_bytes()
    assert ["d/a.py"] == list(target.managed.files)


def test_a_file_whose_key_is_there_does_not_make_way(folder: Path, target: Target) -> None:
    put(target, "d")

    with pytest.raises(Blocked):
        target.publish("d/a.py", entry_of("a"), download_of(target), Fence(), lambda path: True)

    assert BODY == (folder / "d").read_bytes()


# --- times


def test_a_changed_file_gets_a_later_second(folder: Path, target: Target) -> None:
    """
    Python's bytecode cache and Airflow's file processor compare whole seconds and sizes.
    """
    seconds = []
    for content in (b"one", b"two", b"six"):
        put(target, "a.py", content)
        seconds.append((folder / "a.py").stat().st_mtime_ns // SECOND_NS)

    assert seconds == sorted(set(seconds))


def test_a_file_that_returns_within_a_second_gets_a_later_one(folder: Path, target: Target) -> None:
    put(target, "a.py", b"one")
    first = (folder / "a.py").stat().st_mtime_ns // SECOND_NS
    target.delete("a.py", Fence())
    target.end_cycle(Fence())

    put(target, "a.py", b"two")

    assert (folder / "a.py").stat().st_mtime_ns // SECOND_NS > first


def test_a_foreign_file_of_the_future_is_followed_by_a_later_second(
    folder: Path, target: Target
) -> None:
    (folder / "a.py").write_bytes(b"x")
    future = int(time.time()) + 5000
    os.utime(folder / "a.py", (future, future))

    put(target, "a.py")

    assert future + 1 == (folder / "a.py").stat().st_mtime


def test_a_new_file_has_the_time_of_its_publish(folder: Path, target: Target) -> None:
    before = time.time_ns()
    put(target, "a.py")

    assert before <= (folder / "a.py").stat().st_mtime_ns <= time.time_ns()


# --- deleting


def test_deletes_a_file_and_the_folders_that_it_leaves_empty(folder: Path, target: Target) -> None:
    put(target, "a/b/c.py")
    put(target, "a/d.py")

    assert target.delete("a/b/c.py", Fence())

    assert ["d.py"] == os.listdir(folder / "a")
    assert ["a/d.py"] == list(target.managed.files)
    assert target.delete("a/d.py", Fence())
    assert [RESERVED] == os.listdir(folder)


def test_a_folder_with_something_foreign_stays(folder: Path, target: Target) -> None:
    put(target, "a/b.py")
    (folder / "a/__pycache__").mkdir()

    assert target.delete("a/b.py", Fence())

    assert ["__pycache__"] == os.listdir(folder / "a")


@pytest.mark.parametrize("instead", ["nothing", "folder", "no parent", "parent is a file"])
def test_a_file_that_is_gone_already_is_struck_from_the_list(
    folder: Path, target: Target, instead: str
) -> None:
    put(target, "a/b.py")
    (folder / "a/b.py").unlink()
    if instead == "folder":
        (folder / "a/b.py/foreign").mkdir(parents=True)
    elif instead != "nothing":
        (folder / "a").rmdir()
        if instead == "parent is a file":
            (folder / "a").write_bytes(b"foreign")

    assert not target.delete("a/b.py", Fence())

    assert {} == target.managed.files
    assert (folder / "a/b.py/foreign").exists() == (instead == "folder")
    assert (folder / "a").is_file() == (instead == "parent is a file")


def test_a_deletion_does_not_follow_a_symlink_above_it(
    folder: Path, target: Target, outside: Path
) -> None:
    put(target, "d/a.py")
    (folder / "d").rename(folder / "moved")
    (folder / "d").symlink_to(outside)

    assert not target.delete("d/a.py", Fence())

    assert b"victim" == (outside / "a.py").read_bytes()
    assert (folder / "moved/a.py").exists() and (folder / "d").is_symlink()


def test_a_deletion_removes_a_symlink_and_not_what_it_points_to(
    folder: Path, target: Target, outside: Path
) -> None:
    put(target, "a.py")
    (folder / "a.py").unlink()
    (folder / "a.py").symlink_to(outside / "a.py")

    target.delete("a.py", Fence())

    assert b"victim" == (outside / "a.py").read_bytes()


def test_what_is_forgotten_stays_on_disk(folder: Path, target: Target) -> None:
    put(target, "a.py")

    target.forget("a.py", Fence())

    assert BODY == (folder / "a.py").read_bytes()
    assert {} == target.managed.files
    assert ["a.py"] == target.foreign()


# --- looking


def test_holds_what_has_the_content_the_size_and_the_mode(folder: Path, target: Target) -> None:
    (folder / "a.py").write_bytes(BODY)
    os.chmod(folder / "a.py", 0o644)
    (folder / "d").mkdir()

    assert target.holds("a.py", entry_of("a.py"))
    assert not target.holds("a.py", entry_of("a.py", b"Print('hello')\n"))
    assert not target.holds("a.py", entry_of("a.py", b"longer than that\n"))
    assert not target.holds("missing/a.py", entry_of("a.py"))
    assert not target.holds("a.py/below", entry_of("a.py"))
    assert not target.holds("d", entry_of("d"))
    os.chmod(folder / "a.py", 0o664)
    assert not target.holds("a.py", entry_of("a.py"))


def test_holds_nothing_behind_a_symlink(folder: Path, target: Target, outside: Path) -> None:
    (outside / "b.py").write_bytes(BODY)
    os.chmod(outside / "b.py", 0o644)
    (folder / "d").symlink_to(outside)
    (folder / "b.py").symlink_to(outside / "b.py")

    assert not target.holds("d/b.py", entry_of("b.py"))
    assert not target.holds("b.py", entry_of("b.py"))


def _edit(place: Path) -> None:
    place.write_bytes(b"Print('hello')\n")
    os.utime(place, ns=(1, 1))


def _link(place: Path) -> None:
    place.rename(place.with_suffix(".moved"))
    place.symlink_to(place.with_suffix(".moved").name)


def _link_folder(place: Path) -> None:
    """
    The file itself stays the same, inode, time and all.
    """
    place.parent.rename(place.parent.with_name("moved"))
    place.parent.symlink_to("moved")


def _link_upper_folder(place: Path) -> None:
    _link_folder(place.parent)


def _replace(place: Path) -> None:
    found = place.stat()
    copy = place.with_suffix(".copy")
    copy.write_bytes(BODY)
    os.chmod(copy, 0o644)
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    copy.rename(place)


def _make_folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda place: place.chmod(0o600),
        lambda place: os.truncate(place, 1),
        lambda place: os.utime(place, ns=(1, 1)),
        lambda place: place.parent.rename(place.parent.with_name("gone")),
        _edit,
        _link,
        _link_folder,
        _link_upper_folder,
        _replace,
        _make_folder,
    ],
    ids=["removed", "mode", "cut", "time", "folder gone", "edit", "link", "folder linked",
         "upper folder linked", "replaced", "folder"],
)  # fmt: skip
def test_what_somebody_did_to_a_file_is_damage(
    folder: Path, target: Target, harm: Callable[[Path], object]
) -> None:
    put(target, "a/b/c.py")
    put(target, "other.py")
    assert set() == damaged(target)

    harm(folder / "a/b/c.py")

    assert {"a/b/c.py"} == damaged(target)


def test_reading_a_file_is_no_damage(folder: Path, target: Target) -> None:
    put(target, "a.py")
    (folder / "a.py").read_bytes()
    os.link(folder / "a.py", folder / "linked.py")

    assert set() == damaged(target)


def test_only_managed_files_are_damaged(folder: Path, target: Target) -> None:
    put(target, "a.py")
    (folder / "foreign").write_bytes(b"x")

    assert set() == target.damaged(iter(["foreign", "a.py", "missing"]))


def test_foreign_are_files_and_links_and_neither_bytecode_nor_ours(
    folder: Path, target: Target, outside: Path
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


def test_a_file_is_still_ours_after_a_restart(folder: Path, target: Target) -> None:
    put(target, "a/b.py")
    held = dict(target.managed.files)
    target.end_cycle(Fence())

    with opened(folder) as successor:
        assert held == successor.managed.files
        assert set() == damaged(successor)


# --- a part of `.s3-sync`


@pytest.fixture
def tree(volume: Volume) -> Iterator[Target]:
    """
    A part that is no consumer's business, with one file.
    """
    tree = Target(volume, file_mode=0o644, part=TREE)
    put(tree, "a/b.py")
    yield tree
    tree.close()


@pytest.mark.parametrize(
    ("part", "place", "journal"),
    [
        ("", "", "managed"),
        (TREE, f"{RESERVED}/tree", "tree.managed"),
        ("snapshots/r1", f"{RESERVED}/snapshots/r1", "snapshots/r1.managed"),
    ],
)
def test_a_part_has_its_files_and_its_list(
    folder: Path, part: str, place: str, journal: str
) -> None:
    with opened(folder, part=part) as target:
        put(target, "a/b.py")
        assert str(folder / place) == target.path.rstrip("/")

    assert BODY == (folder / place / "a/b.py").read_bytes()
    assert b'"a/b.py"' in (folder / RESERVED / journal).read_bytes()
    assert journal.rpartition("/")[2] == list_name(part)
    with opened(folder, part=part) as successor:
        assert {"a/b.py"} == set(successor.managed.files) and set() == damaged(successor)


def test_parts_do_not_see_each_other(target: Target, tree: Target) -> None:
    put(target, "c.py")

    assert ({"c.py"}, {"a/b.py"}) == (set(target.managed.files), set(tree.managed.files))
    assert ([], []) == (target.foreign(), tree.foreign())


def test_a_symlink_at_a_part_is_replaced_and_not_followed(
    folder: Path, volume: Volume, outside: Path, log: Log
) -> None:
    (folder / RESERVED / TREE).symlink_to(outside)
    tree = Target(volume, file_mode=0o644, part=TREE)

    put(tree, "a.py")

    assert b"victim" == (outside / "a.py").read_bytes()
    assert [TREE] == [event["path"] for event in log.events("symlink_replaced")]
    tree.close()


# --- taking over from another part


def test_a_file_is_taken_as_a_hard_link(folder: Path, target: Target, tree: Target) -> None:
    target.take("a/b.py", tree, Fence(), nothing)

    assert os.path.samefile(folder / "a/b.py", folder / RESERVED / TREE / "a/b.py")
    assert target.managed.files == tree.managed.files
    assert (set(), set()) == (damaged(target), damaged(tree))
    assert [] == staged(folder)


def test_a_file_that_is_there_already_as_the_same_link_is_taken_without_a_trace(
    folder: Path, target: Target, tree: Target
) -> None:
    """
    Renaming a link over another to the same file does nothing, and leaves both.
    """
    target.take("a/b.py", tree, Fence(), nothing)

    target.take("a/b.py", tree, Fence(), nothing)

    assert BODY == (folder / "a/b.py").read_bytes()
    assert [] == staged(folder)


def test_a_file_is_copied_where_there_can_be_no_link(
    folder: Path, target: Target, tree: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
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
        _edit,
        _link,
        _link_folder,
        _replace,
        lambda place: place.chmod(0o600),
        lambda place: place.parent.rename(place.parent.with_name("gone")),
    ],
    ids=["removed", "edit", "link", "folder linked", "replaced", "mode", "folder gone"],
)
def test_what_somebody_changed_is_not_taken(
    folder: Path, target: Target, tree: Target, harm: Callable[[Path], object]
) -> None:
    harm(folder / RESERVED / TREE / "a/b.py")

    with pytest.raises(Torn, match=r"a/b\.py"):
        target.take("a/b.py", tree, Fence(), nothing)

    assert not (folder / "a").exists()
    assert {} == target.managed.files and [] == staged(folder)


def test_taking_replaces_symlinks_and_follows_none(
    folder: Path, target: Target, tree: Target, outside: Path
) -> None:
    (folder / "a").symlink_to(outside)

    target.take("a/b.py", tree, Fence(), nothing)

    assert ["a.py"] == os.listdir(outside)
    assert BODY == (folder / "a/b.py").read_bytes() and not (folder / "a").is_symlink()


def test_taking_is_blocked_by_what_is_not_ours(folder: Path, target: Target, tree: Target) -> None:
    (folder / "a").write_bytes(b"somebody's")

    with pytest.raises(Blocked):
        target.take("a/b.py", tree, Fence(), nothing)

    assert b"somebody's" == (folder / "a").read_bytes()
    assert {} == target.managed.files and [] == staged(folder)


def test_nothing_is_taken_under_a_revoked_fence(
    folder: Path, target: Target, tree: Target, revoked: Fence
) -> None:
    with pytest.raises(CycleAbandoned):
        target.take("a/b.py", tree, revoked, nothing)

    assert not (folder / "a").exists()
    assert {} == target.managed.files and [] == staged(folder)


# --- without touching it


def test_a_missing_target_has_no_files_and_stays_missing(folder: Path) -> None:
    assert ({}, []) == read_target(str(folder), "", with_foreign=True)
    assert not folder.exists()


def test_a_target_is_read_without_touching_it(folder: Path, target: Target) -> None:
    put(target, "a.py")
    staging = target.open_staging()
    (folder / "foreign").write_bytes(b"x")
    target.close()
    journal = (folder / RESERVED / "managed").read_bytes()

    managed, foreign = read_target(str(folder), "", with_foreign=True)

    assert (["a.py"], ["foreign"]) == (list(managed), foreign)
    assert (managed, []) == read_target(str(folder), "", with_foreign=False)
    assert ({}, []) == read_target(str(folder), TREE, with_foreign=True)
    assert not (folder / RESERVED / TREE).exists()
    assert [staging.name] == staged(folder)
    assert journal == (folder / RESERVED / "managed").read_bytes()
    staging.close()


def test_a_part_is_read_without_touching_it(folder: Path, target: Target, tree: Target) -> None:
    (folder / RESERVED / TREE / "foreign").write_bytes(b"x")
    (folder / "no business of ours").write_bytes(b"x")
    journal = (folder / RESERVED / list_name(TREE)).read_bytes()

    managed, foreign = read_target(str(folder), TREE, with_foreign=True)

    assert ({"a/b.py"}, ["foreign"]) == (set(managed), foreign)
    assert journal == (folder / RESERVED / list_name(TREE)).read_bytes()
