"""
Equal files of two commits are shared as hard links.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.published.sharing import ASIDE, BLOCK_BYTES, differing, share
from git_sync_wrapper.published.tree import opened
from tests.support.raising import raised


class Site:
    """A checkout, the published snapshot, and the store."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.shown, self.store = (
            folder / name for name in ("checkout", "shown", "store")
        )
        for path in (self.checkout, self.shown, self.store):
            path.mkdir()

    def write(self, path: str, old: bytes, new: bytes, mode: int = 0o644) -> None:
        for folder, content in ((self.shown, old), (self.checkout, new)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            (folder / path).chmod(mode)

    def share(self) -> set[str]:
        with (
            opened(str(self.checkout)) as one,
            opened(str(self.shown)) as other,
            opened(str(self.store)) as store,
        ):
            return {path for path, _ in share(one, other, store)}

    def is_shared(self, path: str) -> bool:
        return (self.checkout / path).lstat().st_ino == (self.shown / path).lstat().st_ino

    def differing(self, *, is_first: bool = False) -> list[str]:
        with opened(str(self.checkout)) as one, opened(str(self.shown)) as other:
            return sorted(differing(one, None if is_first else other))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    assert [] == os.listdir(site.store)


def test_shares_equal_files_and_keeps_their_time(site: Site) -> None:
    site.write("same.py", b"1", b"1")
    site.write("deep/down/same.py", b"1", b"1", 0o755)
    site.write("other.py", b"1", b"2")
    site.write("longer.py", b"1", b"11")
    os.utime(site.shown / "same.py", ns=(7, 7))

    assert {"same.py", "deep/down/same.py"} == site.share() == site.share()
    assert 7 == (site.checkout / "same.py").stat().st_mtime_ns
    assert site.is_shared("deep/down/same.py")
    assert (b"2", b"11") == tuple(
        (site.checkout / name).read_bytes() for name in ("other.py", "longer.py")
    )


@pytest.mark.parametrize("place", [0, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_compares_a_large_file_completely(site: Site, place: int) -> None:
    content = bytearray(BLOCK_BYTES + 2)
    site.write("same.bin", bytes(content), bytes(content))
    changed = bytearray(content)
    changed[place] = 1
    site.write("other.bin", bytes(content), bytes(changed))

    assert {"same.bin"} == site.share()


def spoil_last_block(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end of a file be unreadable, as on a bad disk."""
    read_of, inode = os.read, path.stat().st_ino

    def read(fd: int, count: int) -> bytes:
        block = read_of(fd, count)
        if os.fstat(fd).st_ino == inode and len(block) < BLOCK_BYTES:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return block

    monkeypatch.setattr(os, "read", read)


@pytest.mark.parametrize("size_bytes", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_a_published_file_that_cannot_be_read_differs(
    site: Site, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    site.write("bad.py", bytes(size_bytes), bytes(size_bytes))
    site.write("good.py", b"1", b"1")
    spoil_last_block(site.shown / "bad.py", monkeypatch)

    assert ["bad.py"] == site.differing()
    assert {"good.py"} == site.share()

    spoil_last_block(site.checkout / "bad.py", monkeypatch)
    assert errno.EIO == raised(OSError, site.share).errno


def test_does_not_share_a_file_with_another_mode(site: Site) -> None:
    site.write("run.sh", b"1", b"1")
    (site.checkout / "run.sh").chmod(0o755)

    assert set() == site.share()


def test_ignores_the_rights_that_a_mount_with_fsgroup_adds(site: Site) -> None:
    """It adds group rights to files, and to each folder the setgid bit, which identifies it."""
    for name, mode in {"a.py": 0o644, "run.sh": 0o755, "other.sh": 0o755}.items():
        site.write(name, b"1", b"1", mode)
        (site.shown / name).chmod(mode | 0o660)
    (site.checkout / "other.sh").chmod(0o644)
    assert set() == site.share(), "without setgid, a user or --group-write may have set these modes"

    site.shown.chmod(0o2775)

    assert {"a.py", "run.sh"} == site.share()


def test_shares_symlinks_as_symlinks(site: Site) -> None:
    for folder, other in ((site.shown, "b.py"), (site.checkout, "c.py")):
        (folder / "same").symlink_to("a.py")
        (folder / "other").symlink_to(other)

    assert {"same"} == site.share()
    assert ("a.py", "c.py") == tuple(os.readlink(site.checkout / n) for n in ("same", "other"))


@pytest.mark.parametrize("kind", ["missing", "folder", "link to a folder", "link to the file"])
def test_does_not_share_if_the_kind_of_file_differs(site: Site, tmp_path: Path, kind: str) -> None:
    site.write("a/b.py", b"1", b"1")
    (site.shown / "a").rename(tmp_path / "moved")
    if kind == "folder":
        (site.shown / "a/b.py").mkdir(parents=True)
    elif kind == "link to a folder":
        (site.shown / "a").symlink_to(tmp_path / "moved")
    elif kind == "link to the file":
        (site.shown / "a").mkdir()
        (site.shown / "a/b.py").symlink_to(tmp_path / "moved/b.py")

    assert set() == site.share()
    assert b"1" == (site.checkout / "a/b.py").read_bytes()


def test_never_shares_gits_pointer_file(site: Site) -> None:
    site.write(".git", b"gitdir: x", b"gitdir: x")

    assert set() == site.share()


def test_replaces_a_temporary_file_left_by_a_crash(site: Site) -> None:
    site.write("same.py", b"1", b"1")
    (site.store / ASIDE).write_text("left")

    assert {"same.py"} == site.share()


def test_shares_nothing_without_hard_links(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write("same.py", b"1", b"1")

    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", link)

    assert set() == site.share()
    assert not site.is_shared("same.py")


def test_lists_the_files_that_differ_from_the_published_ones(site: Site) -> None:
    site.write("same.py", b"1", b"1")
    site.write("deep/down/same.py", b"1", b"1")
    site.write("deep/other.py", b"1", b"2")
    site.write("mode.py", b"1", b"1")
    (site.checkout / "mode.py").chmod(0o755)
    (site.checkout / "new").mkdir()
    (site.checkout / "new/file.py").touch()
    (site.checkout / "new/.git").touch()
    (site.checkout / "link").symlink_to("deep")

    changed = ["deep/other.py", "link", "mode.py", "new/file.py"]
    assert changed == site.differing()
    assert sorted([*changed, "same.py", "deep/down/same.py"]) == site.differing(is_first=True)
