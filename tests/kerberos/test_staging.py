"""
Publishing a ccache on its volume.
"""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kerberos_sidecar.staging import Staging, explain_os_error
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.kerberos.given import as_nobody, entry, keytab, open_way
from tests.runtime.recording import Log
from tests.support.raising import raised

OLD, NEW = b"the old ccache", b"the new ccache, which is longer"


def publish(path: Path, content: bytes, fence: Fence, mode: int = 0o640) -> None:
    with Staging(str(path), mode, fence) as staging:
        staging.publish(content)


def test_publishes_with_the_configured_mode_whatever_the_umask(path: Path, fence: Fence) -> None:
    before = os.umask(0o077)
    try:
        publish(path, NEW, fence, 0o664)
    finally:
        os.umask(before)

    assert (NEW, 0o664) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    assert ["ccache"] == os.listdir(path.parent)


def test_only_the_owner_can_open_the_new_file_before_its_mode_is_set(
    path: Path, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that opens the empty file could read the ticket later."""
    before: list[int] = []
    fchmod = os.fchmod

    def look(fd: int, mode: int) -> None:
        before.append(stat.S_IMODE(os.fstat(fd).st_mode))
        fchmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", look)
    umask = os.umask(0)
    try:
        publish(path, NEW, fence)
    finally:
        os.umask(umask)

    assert [0o600] == before


def test_flushes_the_new_ccache_to_disk_before_it_replaces_the_old_one(
    path: Path, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(OLD)
    flushed: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: flushed.append((os.pread(fd, 9999, 0), path.read_bytes()))
    )

    publish(path, NEW, fence)

    assert [(NEW, OLD)] == flushed


def test_replaces_a_symlink_instead_of_following_it(path: Path, fence: Fence) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(OLD)
    path.symlink_to("victim")

    publish(path, NEW, fence)

    assert (OLD, False) == (victim.read_bytes(), path.is_symlink())


def test_moves_a_folder_aside_and_keeps_its_content(path: Path, fence: Fence, log: Log) -> None:
    path.mkdir()
    publish(path, NEW, fence)
    path.unlink()
    path.mkdir()
    path.with_name("ccache").joinpath("kept").write_bytes(OLD)

    publish(path, NEW, fence)

    assert NEW == path.read_bytes()
    (aside,) = set(os.listdir(path.parent)) - {"ccache"}
    assert OLD == (path.parent / aside / "kept").read_bytes()
    events = log.events("moved_aside")
    assert [str(path)] * 2 == [event["ccache"] for event in events]
    assert str(path.parent / aside) == events[1]["kept"]


def test_moves_a_keytab_aside_and_keeps_it(path: Path, fence: Fence, log: Log) -> None:
    """It may be the only copy, if KERBEROS_CCACHE names it by mistake."""
    path.write_bytes(keytab(entry()))

    publish(path, NEW, fence)

    assert NEW == path.read_bytes()
    (aside,) = set(os.listdir(path.parent)) - {"ccache"}
    assert keytab(entry()) == (path.parent / aside).read_bytes()
    assert str(path.parent / aside) == log.events("moved_aside")[0]["kept"]


def test_a_volume_that_keeps_no_modes_is_reported_before_the_kdc_is_asked(
    path: Path, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CIFS mount gives all files its `file_mode`; chmod succeeds and changes nothing."""
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)

    error = raised(SidecarError, Staging(str(path), 0o640, fence).__enter__)

    assert "ccache_failed" == error.reason
    assert "mode 0600 instead of 0640" in error.message
    assert "KERBEROS_CCACHE_MODE to 0600" in error.advice
    assert ["ccache"] == os.listdir(path.parent)
    publish(path, NEW, fence, 0o600)
    assert NEW == path.read_bytes()


def test_sets_the_group_of_the_folder(path: Path, fence: Fence) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives folders away")
    os.chown(path.parent, -1, 12345)

    publish(path, NEW, fence)

    assert (12345, 0o640) == (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode))


def test_publishes_even_if_the_system_refuses_the_group(path: Path, fence: Fence, log: Log) -> None:
    path.parent.chmod(0o777)
    os.chown(path.parent, 65534, 12345)
    open_way(path.parent)
    with as_nobody():
        publish(path, NEW, fence)

    assert NEW == path.read_bytes()
    assert 12345 == log.events("group_not_set")[0]["group"]


def test_a_revoked_fence_keeps_the_old_ccache_and_leaves_no_file(path: Path, fence: Fence) -> None:
    path.write_bytes(OLD)
    fence.revoke()

    with pytest.raises(CycleAbandoned):
        publish(path, NEW, fence)

    assert OLD == path.read_bytes()
    assert ["ccache"] == os.listdir(path.parent)


def test_a_failure_while_staging_leaves_no_file(path: Path) -> None:
    path.write_bytes(OLD)

    with pytest.raises(LookupError), Staging(str(path), 0o640, Fence()):
        raise LookupError

    assert ["ccache"] == os.listdir(path.parent)


def leave(path: Path, name: str) -> Path:
    """Create the file that a killed process leaves."""
    left = path.with_name(f".{path.name}.{name}.new")
    left.write_bytes(bytes(4096))
    return left


def test_removes_the_file_that_a_killed_process_left(path: Path, fence: Fence, log: Log) -> None:
    left = leave(path, "0123456789abcdef")

    publish(path, NEW, fence)

    assert ["ccache"] == os.listdir(path.parent)
    assert [str(left)] == [e["path"] for e in log.events("leftover_removed")]


def test_publishes_on_a_file_system_that_does_not_count_links(
    path: Path, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some FUSE file systems, a new file has no links, as if it were already removed."""
    fstat, asked = os.fstat, 0

    def without_links(fd: int) -> os.stat_result:
        nonlocal asked
        asked += 1
        assert asked < 100, "it tries again and again"
        found = list(fstat(fd))
        found[stat.ST_NLINK] = 0
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", without_links)
    publish(path, NEW, fence)
    monkeypatch.undo()

    assert ["ccache"] == os.listdir(path.parent)


def test_keeps_a_staging_file_that_another_process_has_locked(path: Path, fence: Fence) -> None:
    left = leave(path, "0123456789abcdef")
    with left.open("rb") as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        publish(path, NEW, fence)

        assert {left.name, "ccache"} == set(os.listdir(path.parent))
    publish(path, OLD, fence)
    assert ["ccache"] == os.listdir(path.parent)


@pytest.mark.parametrize("name", ["ccache", "[a]*?"])
def test_keeps_files_that_other_processes_own(tmp_path: Path, fence: Fence, name: str) -> None:
    others = {f"{name}.new", f".{name}", ".other.0123.new", "keytab", f".{name}.0123.old"}
    others |= {".a.0123.new"}  # the name must not act as a glob pattern
    for other in others:
        (tmp_path / other).write_bytes(b"")
    leave(tmp_path / name, "0123456789abcdef")

    publish(tmp_path / name, NEW, fence)

    assert {name, *others} == set(os.listdir(tmp_path))


def test_concurrent_writers_never_fail_or_mix_their_ccaches(path: Path, fence: Fence) -> None:
    """They share no lock and no file name: each replaces the whole ccache."""
    contents = [bytes([65 + number]) * 2000 for number in range(4)]
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(15):
                publish(path, content, fence)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            seen.add(path.read_bytes())
    for thread in threads:
        thread.join()

    assert [] == failures
    assert seen <= set(contents)
    assert ["ccache"] == os.listdir(path.parent)


def refused(path: Path) -> SidecarError:
    return raised(SidecarError, Staging(str(path), 0o640, Fence()).__enter__)


def test_reports_a_missing_folder(tmp_path: Path) -> None:
    error = refused(tmp_path / "missing" / "ccache")

    assert "ccache_missing" == error.reason
    assert str(tmp_path / "missing") in error.message


def test_reports_a_folder_that_is_not_writable(path: Path) -> None:
    with as_nobody():
        error = refused(path)

    assert "ccache_denied" == error.reason
    assert f"cannot write {path} as uid {os.getuid()} with group " in error.message
    assert "KERBEROS_CCACHE" in error.advice


def test_reports_a_sticky_folder_with_another_users_ccache(path: Path, fence: Fence) -> None:
    path.write_bytes(OLD)
    open_way(path.parent)
    path.parent.chmod(0o1777)

    with as_nobody(), pytest.raises(SidecarError) as caught:
        publish(path, NEW, fence)

    assert "ccache_denied" == caught.value.reason
    assert "sticky" in caught.value.advice
    assert ["ccache"] == os.listdir(path.parent)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "ccache_full"),
        (errno.EDQUOT, "ccache_full"),
        (errno.EROFS, "ccache_denied"),
        (errno.EPERM, "ccache_denied"),
        (errno.ENOTDIR, "ccache_missing"),
        (errno.EIO, "ccache_failed"),
        (errno.EISDIR, "ccache_failed"),
    ],
)
def test_each_file_system_error_has_its_reason(number: int, reason: str) -> None:
    assert reason == explain_os_error(OSError(number, os.strerror(number)), "/cc/ccache").reason


MEASURED = """
import gc, os, sys, tracemalloc
from contextlib import suppress
from pathlib import Path
from kerberos_sidecar.staging import Staging
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

def publish(path, times=1):
    for _ in range(times):
        with Staging(str(path), 0o640, Fence()) as staging:
            staging.publish(CONTENT)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

CONTENT = bytes(500)
path, descriptors = Path(sys.argv[1]), "/proc/self/fd"
opened = len(os.listdir(descriptors))
publish(path, 5)
tracemalloc.start()
lost = publish(path) - publish(path, 60)
path.with_name(".ccache.0123456789abcdef.new").touch()
publish(path)
with suppress(SidecarError):
    publish("/missing/ccache")
print(-lost, 60 * len(CONTENT), len(os.listdir(descriptors)) - opened)
"""


def test_repeated_publishing_leaks_no_memory_and_no_descriptors(path: Path) -> None:
    """In a separate process, where nothing else allocates memory or opens files."""
    out = subprocess.check_output([sys.executable, "-c", MEASURED, str(path)], text=True)

    grown_bytes, published_bytes, descriptors = map(int, out.splitlines()[-1].split())
    assert grown_bytes < published_bytes  # `glob` would cache 1 KiB for each of the 60
    assert 0 == descriptors
