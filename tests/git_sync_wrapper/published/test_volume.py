"""
The published state: snapshots, the link, the record.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from git_sync_wrapper.flags.options import Options, read_options
from git_sync_wrapper.published import contents
from git_sync_wrapper.published.record import RECORD, Published, look
from git_sync_wrapper.published.tree import opened, walk
from git_sync_wrapper.published.volume import LIST, Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.support.raising import raised

ONE, TWO = "1" * 40, "2" * 40


def options(root: Path, link: str = "repo") -> Options:
    return read_options(
        [f"--root={root}", f"--link={link}"], {"GITSYNC_REPO": "https://h/r", "GITSYNC_REF": "main"}
    )


class Site:
    """A volume with a worktree, and the steps of a cycle."""

    def __init__(
        self,
        root: Path,
        link: str = "repo",
        *,
        fsync: bool = False,
        retain_seconds: float = 0,
        retain_bytes: int | None = None,
        reads: bool = True,
    ) -> None:
        self.root, self.link = root, root / link
        self.snapshot = root / ".snapshots" / ONE
        self.record = root / ".snapshots/published.json"
        self.volume = Volume(
            options(root, link),
            retain_count=0,
            retain_seconds=retain_seconds,
            retain_bytes=retain_bytes,
            fsync=fsync,
            reads=reads,
        )
        self.worktree = root / ".git-sync" / ".worktrees" / ONE
        (self.worktree / "dags").mkdir(parents=True, exist_ok=True)
        if not (self.worktree / ".git").exists():
            (self.worktree / "dags" / "a.py").write_text("a = 1\n")
            (self.worktree / ".git").write_text(f"gitdir: ../../.git/worktrees/{ONE}\n")

    def add(self, commit: str = ONE) -> None:
        self.volume.add(commit, str(self.worktree), Fence())

    def show(self, commit: str = ONE, made_by: str = "") -> None:
        self.volume.show(commit, made_by, Fence())

    def publish(self, commit: str = ONE, made_by: str = "") -> None:
        self.add(commit)
        self.show(commit, made_by)

    def snapshots(self) -> list[str]:
        return [path.name for path in self.snapshot.parent.iterdir() if path.is_dir()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def site(root: Path) -> Iterator[Site]:
    site = Site(root)
    yield site
    site.volume.close()


def test_publishes_a_commit_with_a_relative_link(site: Site) -> None:
    site.link.symlink_to(".worktrees/x")  # as plain git-sync leaves it
    site.add()
    assert Published() == site.volume.published()

    site.show(made_by="settings")

    assert f".snapshots/{ONE}" == os.readlink(site.link)
    (site.worktree / "dags/a.py").unlink()  # the snapshot does not need it
    assert "a = 1\n" == (site.link / "dags/a.py").read_text()
    assert (ONE, "settings") == (site.volume.published().commit, site.volume.published().made_by)
    record = json.loads(site.record.read_text())
    assert {"revision": ONE, "repo": "https://h/r", "ref": "main"}.items() <= record.items()
    assert 0o664 == stat.S_IMODE(site.record.stat().st_mode)


def test_a_commit_can_be_requested_only_once_it_was_published(site: Site, root: Path) -> None:
    site.add()
    assert not site.volume.has(ONE)
    site.volume.close()

    site.volume = Site(root).volume
    site.volume.prepare()
    assert not site.volume.has(ONE)
    site.publish()

    assert site.volume.has(ONE)
    site.add()
    assert site.volume.has(ONE), "it was published before"


def test_files_are_hard_links_and_the_git_file_leads_to_the_repository(site: Site) -> None:
    site.add()

    assert (site.worktree / "dags/a.py").samefile(site.snapshot / "dags/a.py")
    assert f"gitdir: ../../.git-sync/.git/worktrees/{ONE}\n" == (site.snapshot / ".git").read_text()


def test_a_snapshot_contains_submodules_symlinks_and_empty_folders(site: Site) -> None:
    (site.worktree / "sub").mkdir()
    (site.worktree / "sub/.git").write_text(f"gitdir: ../../../.git/worktrees/{ONE}/modules/sub\n")
    (site.worktree / "dags/link.py").symlink_to("a.py")
    (site.worktree / "dags/folder").symlink_to("../sub")
    (site.worktree / "unused/deep").mkdir(parents=True)

    site.add()

    snapshot = site.snapshot
    expected = f"gitdir: ../../../.git-sync/.git/worktrees/{ONE}/modules/sub\n"
    assert expected == (snapshot / "sub/.git").read_text()
    assert "a.py" == os.readlink(snapshot / "dags/link.py")
    assert "../sub" == os.readlink(snapshot / "dags/folder")
    assert (snapshot / "unused/deep").is_dir()


def test_a_snapshot_contains_a_file_beyond_the_longest_path(site: Site) -> None:
    """git's paths are relative and may reach the kernel's limit; absolute ones are longer."""
    names = ["d" * 250] * (os.pathconf("/", "PC_PATH_MAX") // 251)
    with ExitStack() as stack:
        folder = stack.enter_context(opened(str(site.worktree)))
        for name in names:
            os.mkdir(name, dir_fd=folder)
            folder = stack.enter_context(opened(name, folder))
        os.close(os.open("deep.py", os.O_CREAT, dir_fd=folder))

    site.publish()

    with opened(str(site.snapshot)) as snapshot:
        found = {path for path, _, _ in walk(snapshot)}
        assert {"dags/a.py", f"{'/'.join(names)}/deep.py"} == found
        assert [] == site.volume.look(ONE, is_holder=True)


def test_reads_a_list_once_and_again_after_another_process_wrote_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish()
    of_another = Site(site.root)
    read: list[str] = []
    read_of = contents.read

    def count(name: str, folder: int) -> contents.Contents | None:
        read.append(name)
        return read_of(name, folder)

    monkeypatch.setattr(contents, "read", count)
    for _ in range(2):
        assert [] == site.volume.look(ONE, is_holder=True)
    assert [] == read, "this process wrote the list itself"

    (site.worktree / "more.py").write_text("")
    of_another.add()
    of_another.volume.close()
    (site.snapshot / "more.py").unlink()
    read.clear()

    for _ in range(2):
        assert ["more.py"] == site.volume.look(ONE, is_holder=True)
    assert [f"{ONE}.files"] == read


def test_a_full_volume_hides_no_damage_and_the_next_inspection_writes_the_list(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(root, reads=False)
    (site.worktree / "more.py").write_text("m = 1\n")
    site.publish()

    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (site.snapshot / "more.py").chmod(0o644)
    (site.snapshot / "more.py").write_bytes(b"")
    with monkeypatch.context() as full:
        full.setattr(contents, "write_file", no_room)
        assert ["more.py"] == site.volume.look(ONE, is_holder=True)

    assert ["more.py"] == site.volume.look(ONE, is_holder=True)
    with opened(str(site.snapshot.parent)) as store:
        rows = contents.read(f"{ONE}.files", store)
    site.volume.close()
    assert rows and rows["dags/a.py"].digest


@pytest.mark.parametrize("is_holder", [True, False])
def test_a_lock_holder_reads_files_that_a_one_shot_did_not(root: Path, is_holder: bool) -> None:
    one_shot = Site(root, reads=False)
    one_shot.publish()
    one_shot.volume.close()
    site = Site(root)

    def digest() -> str:
        with opened(str(site.snapshot.parent)) as store:
            rows = contents.read(f"{ONE}.files", store)
        return rows["dags/a.py"].digest if rows else ""

    assert "" == digest()
    assert [] == site.volume.look(ONE, is_holder=is_holder)
    assert is_holder == bool(digest())

    os.link(site.snapshot / "dags/a.py", root / "other")  # as if another commit shared it

    assert ([] if is_holder else None) == site.volume.look(ONE, is_holder=is_holder)
    site.volume.repair(ONE, str(site.worktree), Fence())
    assert digest()
    assert [] == site.volume.look(ONE, is_holder=is_holder)
    site.volume.close()


@contextmanager
def plain_user() -> Iterator[None]:
    """Become a user without root's rights."""
    if os.geteuid() != 0:
        pytest.skip("a folder of another user needs root")
    os.seteuid(65533)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_root() -> Iterator[Path]:
    """A root of another user, in a folder that everyone can enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder, "root")


def close_snapshot(snapshot: Path) -> None:
    snapshot.chmod(0)


def close_folder(snapshot: Path) -> None:
    (snapshot / "dags").chmod(0)


def put_folder_of_another(snapshot: Path) -> None:
    shutil.rmtree(snapshot / "dags")
    (snapshot / "dags").mkdir()
    (snapshot / "dags/a.py").write_text("a = 2\n")


def put_folder_of_another_over_file(snapshot: Path) -> None:
    (snapshot / "dags/a.py").unlink()
    (snapshot / "dags/a.py").mkdir()
    (snapshot / "dags/a.py/inside").touch()


@pytest.mark.parametrize(
    "spoil",
    [close_snapshot, close_folder, put_folder_of_another, put_folder_of_another_over_file],
)
def test_replaces_a_snapshot_that_cannot_be_repaired_in_place(
    open_root: Path, log: Log, spoil: Callable[[Path], None]
) -> None:
    """Each time: nobody but root can remove what it replaces."""
    with plain_user():
        site = Site(open_root)
        site.publish()
    for _ in range(2):
        spoil(site.snapshot)
        with plain_user():
            assert ["dags/a.py"] == site.volume.look(ONE, is_holder=True)

            site.volume.repair(ONE, str(site.worktree), Fence())

            assert [] == site.volume.look(ONE, is_holder=True)
        assert "a = 1\n" == (site.link / "dags/a.py").read_text()
        modes = [path.stat().st_mode & 0o777 for path in (site.snapshot, site.link / "dags")]
        assert [0o755] * 2 == modes
    site.volume.close()
    assert [["dags/a.py"]] * 2 == [event["paths"] for event in log.events("damage_repaired")]


@pytest.mark.parametrize("spoil", [close_snapshot, close_folder, put_folder_of_another])
def test_the_next_commit_needs_nothing_of_a_damaged_one(
    open_root: Path, spoil: Callable[[Path], None]
) -> None:
    with plain_user():
        site = Site(open_root)
        site.publish()
    spoil(site.snapshot)
    with plain_user():
        assert ["dags/a.py"] == site.volume.differing(str(site.worktree), ONE)
        assert site.volume.lacking_bytes() <= 0

        site.publish(TWO)

        site.volume.prune(TWO, Fence())
        site.volume.close()
    assert "a = 1\n" == (site.link / "dags/a.py").read_text()


@pytest.mark.parametrize("closed", [".", "dags"])
def test_a_repair_opens_closed_folders(site: Site, log: Log, closed: str) -> None:
    site.publish()
    before = (site.snapshot / "dags/a.py").stat()
    (site.snapshot / closed).chmod(0o700)

    assert ["dags/a.py"] == site.volume.look(ONE, is_holder=True)
    site.volume.repair(ONE, str(site.worktree), Fence())

    assert 0o755 == stat.S_IMODE((site.snapshot / closed).stat().st_mode)
    assert [] == site.volume.look(ONE, is_holder=True)
    assert os.path.samestat(before, (site.snapshot / "dags/a.py").stat())
    assert 1 == log.events("damage_repaired")[0]["files"]


class Killed(BaseException):
    """Raised between two steps, like a kill."""


def test_a_new_snapshot_of_the_same_commit_replaces_the_old_one(site: Site) -> None:
    site.publish()
    (site.worktree / "new.py").write_text("")

    site.add()

    assert (site.link / "new.py").exists()
    assert [ONE] == site.snapshots()


def test_the_link_shows_a_whole_commit_at_each_step_without_an_exchange(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS. Other settings check out other files of a commit; a kill follows each step."""

    def renameat2(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    def replace(root: Path, steps: int) -> bool:
        left = iter(range(steps))

        def rename(*names: Any, **folders: Any) -> None:
            if next(left, None) is None:
                raise Killed
            rename_of(*names, **folders)

        rename_of = os.rename
        site = Site(root)
        site.publish()
        (site.worktree / "new.py").write_text("")
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr("ctypes.CDLL", lambda *_, **__: SimpleNamespace(renameat2=renameat2))
            patch.setattr(os, "rename", rename)
            site.publish()
        site.volume.close()
        after = Site(root)
        after.volume.prepare()
        assert "a = 1\n" == (site.link / "dags/a.py").read_text()
        assert after.volume.published().commit.startswith(ONE)
        after.publish()
        after.volume.prune(ONE, Fence())
        after.volume.close()
        assert [ONE] == after.snapshots()
        return next(left, None) is not None

    assert 8 < next(steps for steps in range(100) if replace(root / str(steps), steps))


def test_prunes_older_commits_with_their_lists_but_not_the_published_one(site: Site) -> None:
    for commit in (ONE, TWO):
        site.publish(commit)

    site.volume.prune(TWO, Fence())

    assert [TWO] == site.snapshots()
    assert [f"{TWO}.files"] == [path.name for path in site.snapshot.parent.glob("*.files")]


@pytest.mark.parametrize(
    ("retain_bytes", "kept"),
    [(None, "1234"), (0, "4"), (30_000, "4"), (50_000, "34"), (100_000, "234"), (150_000, "1234")],
)
def test_removes_the_oldest_commits_beyond_the_size_limit(
    root: Path, retain_bytes: int | None, kept: str
) -> None:
    """Each commit has 40 kB of its own; files that all commits share do not count."""
    site = Site(root, retain_seconds=3_600, retain_bytes=retain_bytes)
    (site.worktree / "common").write_bytes(os.urandom(400_000))
    for number, name in enumerate("1234"):
        own = site.worktree / "own"
        own.unlink(missing_ok=True)
        own.write_bytes(name.encode() * 40_000)
        site.publish(name * 40)
        if number:  # older than the next one, whatever the clock's resolution
            before = site.root / ".snapshots" / (str(number) * 40)
            os.utime(before, ns=(time.time_ns() - (9 - number) * 10**9,) * 2)

    site.volume.prune("4" * 40, Fence())
    found = {name[0] for name in site.snapshots()}
    site.volume.close()

    assert set(kept) == found


def test_reads_the_sizes_of_each_commit_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS, each file costs a round trip."""
    site = Site(root, retain_seconds=3_600, retain_bytes=10**9)
    looked: list[str] = []
    stat_of = os.stat

    def counted(path: Any, **how: Any) -> os.stat_result:
        looked.append(str(path))
        return stat_of(path, **how)

    for commit, looks in ((ONE, 1), (TWO, 2)):
        site.publish(commit)
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", counted)
            site.volume.prune(commit, Fence())
            site.volume.prune(commit, Fence())
        assert looks == looked.count("a.py")
    site.volume.close()


def test_keeps_a_commit_in_use_beyond_the_size_limit(root: Path) -> None:
    site = Site(root, retain_seconds=3_600, retain_bytes=0)
    site.publish(ONE)
    with opened(str(site.snapshot)) as folder:
        fcntl.flock(folder, fcntl.LOCK_SH)
        site.publish(TWO)
        site.volume.prune(TWO, Fence())
        assert {ONE, TWO} == set(site.snapshots())
    site.volume.prune(TWO, Fence())
    site.volume.close()

    assert [TWO] == site.snapshots()


def test_a_standby_reads_a_new_record_of_the_same_commit(site: Site, root: Path) -> None:
    site.add()
    site.volume.show(ONE, "", Fence(), fallback=TWO)
    other = Site(root)
    assert TWO == other.volume.published().fallback

    site.show()

    assert "" == other.volume.published().fallback
    other.volume.close()


def test_an_abandoned_cycle_does_not_swap_the_link(site: Site, fence: Fence) -> None:
    site.add()
    fence.revoke()

    with pytest.raises(CycleAbandoned):
        site.volume.show(ONE, "", fence)

    assert not site.link.is_symlink()


def test_removes_leftovers_of_a_crash(site: Site) -> None:
    (site.root / ".snapshots" / f".{ONE}.1.1").mkdir()

    site.volume.prepare()

    assert [".airflowignore"] == os.listdir(site.root / ".snapshots")


def test_the_record_remains_after_the_link_was_removed(site: Site) -> None:
    site.add()
    site.volume.show(ONE, "settings", Fence(), fallback=TWO)
    before = site.volume.published()
    site.link.unlink()

    assert Published() == site.volume.published()
    assert (ONE, "settings", TWO) == (before.commit, before.made_by, before.fallback)
    assert before == site.volume.recorded()


def test_finds_the_published_commit_without_a_record(root: Path) -> None:
    first = Site(root)
    first.publish(made_by="settings")
    first.volume.close()
    first.record.unlink()

    second = Site(root)
    published = second.volume.published()
    second.volume.close()

    assert (ONE, "") == (published.commit, published.made_by)
    assert published.published_at is not None and published.published_at <= time.time()


@pytest.mark.parametrize("moment", ["NaN", "Infinity", "1" + "0" * 400, '"now"', "null"])
def test_ignores_an_invalid_time_in_a_forged_record(site: Site, moment: str) -> None:
    site.publish()
    record = site.record.read_text().partition('"repo"')[2]
    site.record.write_text(f'{{"revision": "{ONE}", "published_at": {moment}, "repo"{record}')

    assert (ONE, None) == (site.volume.published().commit, site.volume.published().published_at)
    assert site.volume.published() == look(options(site.root))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"revision": 7}', '{"revision": "../x"}'])
def test_an_invalid_record_counts_as_missing(site: Site, content: str) -> None:
    site.record.write_text(content)

    assert Published() == site.volume.recorded()


def test_a_link_in_a_subfolder_leads_to_the_store(root: Path) -> None:
    site = Site(root, "sub/dir/repo")
    site.publish()
    shown = site.volume.published().commit
    site.volume.close()

    assert ONE == shown
    assert f"../../.snapshots/{ONE}" == os.readlink(site.link)


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_moves_files_at_the_link_aside_and_replaces_empty_folders(site: Site, kind: str) -> None:
    site.add()
    if kind == "file":
        site.link.write_text("theirs")
    else:
        site.link.mkdir()
    if kind == "folder":
        (site.link / "theirs.py").write_text("theirs")

    site.show()

    aside = site.root.glob(f"repo.replaced-*{'/theirs.py' * (kind == 'folder')}")
    assert ["theirs"] * (kind != "empty folder") == [path.read_text() for path in aside]
    assert ONE == site.volume.published().commit


def test_refuses_a_link_on_another_volume(root: Path) -> None:
    assert "link_elsewhere" == raised(SidecarError, Site, root, "/proc/repo").reason


def test_notices_that_the_store_was_removed_or_replaced(site: Site) -> None:
    assert site.volume.is_current()

    (site.root / ".snapshots").rename(site.root / "gone")

    assert not site.volume.is_current()
    (site.root / ".snapshots").mkdir()
    assert not site.volume.is_current()


@pytest.mark.parametrize("fsync", [True, False])
def test_flushes_new_files_before_the_swap_unless_fsync_is_off(
    root: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    site = Site(root, fsync=fsync)
    (site.worktree / "b.py").write_text("b = 1\n")
    flushed: list[tuple[str, str]] = []

    def flush(fd: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        flushed.append((name, os.readlink(site.link) if site.link.is_symlink() else ""))

    monkeypatch.setattr(os, "fsync", flush)
    site.publish(ONE)
    first = list(flushed)
    (site.worktree / "b.py").unlink()
    (site.worktree / "b.py").write_text("b = 2\n")
    flushed.clear()
    site.publish(TWO)
    site.volume.close()

    if not fsync:
        assert [] == first == flushed
        return
    assert {"a.py", "b.py", "dags", ".snapshots"} <= {name for name, to in first if not to}
    new = {name for name, to in flushed if to == f".snapshots/{ONE}"}
    assert {"b.py", "dags", ".snapshots", f".{TWO}{LIST}.new", f".{RECORD}.new"} <= new
    assert "a.py" not in new, "a shared file is on disk already"


def test_a_repair_keeps_the_age_of_older_commits(site: Site) -> None:
    for commit in (ONE, TWO):
        site.publish(commit)
    os.utime(site.snapshot, (7, 7))
    fresh = site.root / "fresh"
    (fresh / "dags").mkdir(parents=True)
    (fresh / "dags/a.py").write_text("a = 1\n")
    (site.link / "dags/a.py").write_text("")

    site.volume.repair(TWO, str(fresh), Fence())

    assert (7, "a = 1\n") == (
        site.snapshot.stat().st_mtime,
        (site.snapshot / "dags/a.py").read_text(),
    )


@pytest.mark.parametrize("failure", [0, errno.EIO])
def test_flushes_many_files_with_one_call_and_publishes_only_if_it_succeeds(
    root: Path, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    site = Site(root, fsync=True)
    for number in range(100):
        (site.worktree / f"{number}.py").touch()
    shown_at_flush: list[bool] = []

    def syncfs(_: int) -> int:
        shown_at_flush.append(site.link.is_symlink())
        ctypes.set_errno(failure)
        return -1 if failure else 0

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: SimpleNamespace(syncfs=syncfs))
    if failure:
        assert "target_failed" == raised(SidecarError, site.publish).reason
    else:
        site.publish()
    site.volume.close()

    assert [False] == shown_at_flush
    assert site.link.is_symlink() is not bool(failure)


def test_a_volume_without_a_size_lacks_no_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.publish()
    unsized = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: unsized)

    assert site.volume.lacking_bytes() < 0
