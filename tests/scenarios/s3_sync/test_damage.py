"""What others do to files in place is healed: many of them, and while S3 is down."""

from pathlib import Path

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.fake_s3 import FakeS3

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
