"""
Trees of hard links, or of copies if links are impossible.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar_runtime.volume.snapshots import link_tree
from tests.support.machine.descriptors import held

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
    """A source folder with files, and an empty target folder."""

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
    """Return an `os.link` that fails as on a file system without hard links."""

    def link(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return link


def test_links_a_tree_with_unusual_names(pair: Pair) -> None:
    pair.make(*ODD)
    before = held(pair.source.parent)

    found = pair.link(*ODD)

    assert {path: path for path in ODD} == pair.tree()
    for path in ODD:
        assert (pair.source / path).samefile(pair.target / path)
        assert os.path.samestat(found[path], (pair.target / path).stat())
    assert sorted(ODD) == sorted(found)
    assert before == held(pair.source.parent)


@pytest.mark.parametrize(
    "number", [errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS]
)
def test_copies_files_if_hard_links_are_impossible(
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
    # A hard link or a copy of the symlink, which the caller recognizes from its lstat result.
    assert stat.S_ISLNK(pair.link("file")["file"].st_mode)
    assert str(tmp_path / "outside/secret") == os.readlink(pair.target / "file")


def test_a_symlink_planted_in_the_target_is_not_followed(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    pair.make("d/a.py")
    (pair.target / "d").symlink_to(tmp_path / "outside")

    with pytest.raises(NotADirectoryError):
        pair.link("d/a.py")

    assert [] == os.listdir(tmp_path / "outside")


@pytest.mark.parametrize(("is_copied", "fsync"), [(False, True), (True, True), (False, False)])
def test_flushes_each_folder_after_its_files_only_if_fsync_is_set(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, is_copied: bool, fsync: bool
) -> None:
    paths = ["a.py", "d/b.py", "d/e/c.py", "f/d.py"]
    pair.make(*paths)
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    if is_copied:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))

    pair.link(*paths, fsync=fsync)

    expected = {f"{pair.target}{folder}" for folder in ("/d/e", "/d", "/f", "") if fsync}
    assert expected == {path for path in flushed if not path.endswith(".py")}
    if is_copied:  # the file of a hard link was flushed earlier, a copy is new
        assert {str(pair.target / path) for path in paths} <= set(flushed)
