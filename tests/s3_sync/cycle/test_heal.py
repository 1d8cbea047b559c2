"""Damage is put back, in place; of snapshots: test_snapshot_healing.py."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar_runtime.errors import SidecarError
from tests.s3_sync.process import Process
from tests.support.fake_s3 import FakeS3, error, is_get
from tests.support.waiting import wait_until

SETTINGS = {"S3_SYNC_DELETE": "none", "S3_SYNC_SETTLE": "1s"}
FILES = 12


def test_what_a_failed_cycle_has_forgotten_may_be_listed_again(
    s3: FakeS3, process: Process
) -> None:
    """Its key and its file were gone; then S3 failed before the disk was looked at again."""
    for number in range(FILES):
        s3.put(f"{number}.py", b"v = 1\n")
    process.start(SETTINGS)
    wait_until(lambda: process.cycle().result != "settling", "it is published")
    s3.delete("0.py")
    (process.folder / "0.py").unlink()
    for number in range(1, FILES):
        s3.put(f"{number}.py", b"v = 2\n")
    s3.inject(error(503, "SlowDown"), is_get())
    wait_until(lambda: _fails(process), "the change has settled, and cannot be read")
    s3.heal()
    s3.put("0.py", b"v = 3\n")

    wait_until(lambda: process.cycle().result != "settling", "it is published")
    assert b"v = 3\n" == process.shown["0.py"]


def _fails(process: Process) -> bool:
    try:
        process.cycle()
    except SidecarError:
        return True
    return False


DAMAGES: dict[str, Callable[[Path], object]] = {
    "edited": lambda path: path.write_bytes(b"edited by hand"),
    "edited, same size": lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
    "truncated": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a symlink": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "another mode": lambda path: path.chmod(0o600),
    "its folder removed": lambda path: (path.unlink(), path.parent.rmdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_healed(s3: FakeS3, process: Process, damage: str) -> None:
    s3.put("pkg/a.py", b"a = 1\n")
    s3.put("b.py", b"b = 1\n")
    process.run({})
    before = process.shown
    place = process.folder / "pkg/a.py"
    DAMAGES[damage](place)

    ended = [process.cycle() for _ in range(2)]

    assert [1, 0] == [outcome.counts.get("files_healed", 0) for outcome in ended]
    assert "unchanged" == ended[1].result
    assert before == process.shown
    assert 0o644 == stat.S_IMODE(place.lstat().st_mode)
    assert not place.is_symlink()
