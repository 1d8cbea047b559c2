"""
What somebody did to files in place is healed.
"""

import stat
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.fake_s3 import FakeS3
from tests.support.scripted import FILES, published
from tests.support.waiting import wait_until

IDLE_RSS_MIB = 48


def test_a_thousand_files_cost_little_memory_and_are_healed_in_ten_cycles(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    for number in range(1000):
        s3.put(f"dags/team_{number % 90}/dag_{number}.py", f"print({number})\n".encode() * 20)
    daemon = start(s3, target)
    assert daemon.wait_until_synced()["files_published"] >= 1000
    for _ in range(3):
        daemon.sync()

    assert daemon.rss_mib() <= IDLE_RSS_MIB

    (target / "team_7" / "dag_97.py").write_text("edited")
    healed = [daemon.sync().get("files_healed", 0) for _ in range(10)]

    assert sum(healed) == 1


def edit(path: Path) -> None:
    path.write_bytes(b"edited by hand")


def edit_same_size(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def change_mode(path: Path) -> None:
    path.chmod(0o600)


DAMAGES = [
    edit,
    edit_same_size,
    truncate,
    remove,
    replace_by_folder,
    replace_by_symlink,
    change_mode,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_healed(s3: FakeS3, target: Path, start: StartDaemon, damage: object) -> None:
    assert callable(damage)
    daemon = start(s3, target)
    daemon.wait_until_synced()
    damage(target / "a.py")

    ended = [daemon.sync() for _ in range(2)]

    assert [event["event"] for event in ended] == ["cycle_finished"] * 2
    assert sum(event.get("files_healed", 0) for event in ended) == 1, ended
    assert published(target) == FILES
    assert stat.S_IMODE((target / "a.py").stat().st_mode) == 0o644
    assert not (target / "a.py").is_symlink()
    assert daemon.sync()["result"] == "unchanged"


def test_a_whole_folder_that_is_removed_is_healed(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(s3, target)
    daemon.wait_until_synced()
    for path in (target / "pkg").iterdir():
        path.unlink()
    (target / "pkg").rmdir()

    daemon.sync()
    daemon.sync()

    assert published(target) == FILES


def test_damage_without_s3_shows_in_readiness(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    """
    Ready means that no published file is damaged.
    """
    daemon = start(s3, target, interval="0.5")
    daemon.wait_until_synced()
    s3.stop()
    (target / "a.py").unlink()

    wait_until(lambda: daemon.get("/readyz").status == 503, "not ready")

    s3.start()
    daemon.wait_until_ready()
    assert published(target) == FILES
