"""What others do to files in place is healed."""

import stat
from collections.abc import Callable
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
    daemon = start()
    assert daemon.wait_until_synced()["files_published"] >= 1000
    for _ in range(3):
        daemon.sync()

    assert daemon.rss_mib() <= IDLE_RSS_MIB

    (target / "team_7" / "dag_97.py").write_text("edited")
    healed = [daemon.sync().get("files_healed", 0) for _ in range(10)]

    assert sum(healed) == 1


DAMAGES: dict[str, Callable[[Path], object]] = {
    "edited": lambda path: path.write_bytes(b"edited by hand"),
    "edited, same size": lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
    "truncated": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a symlink": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "another mode": lambda path: path.chmod(0o600),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_healed(target: Path, start: StartDaemon, damage: str) -> None:
    daemon = start().until_synced()
    DAMAGES[damage](target / "a.py")

    ended = [daemon.sync() for _ in range(2)]

    assert [event["event"] for event in ended] == ["cycle_finished"] * 2
    assert sum(event.get("files_healed", 0) for event in ended) == 1, ended
    assert published(target) == FILES
    assert stat.S_IMODE((target / "a.py").stat().st_mode) == 0o644
    assert not (target / "a.py").is_symlink()
    assert daemon.sync()["result"] == "unchanged"


def test_a_whole_folder_that_is_removed_is_healed(target: Path, start: StartDaemon) -> None:
    daemon = start().until_synced()
    for path in (target / "pkg").iterdir():
        path.unlink()
    (target / "pkg").rmdir()

    daemon.sync()
    daemon.sync()

    assert published(target) == FILES


def test_damage_without_s3_shows_in_readiness(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    """Ready means that no published file is damaged."""
    daemon = start(interval="0.5").until_synced()
    s3.stop()
    (target / "a.py").unlink()

    wait_until(lambda: daemon.get("/readyz").status == 503, "not ready")

    s3.start()
    daemon.wait_until_ready()
    assert published(target) == FILES
