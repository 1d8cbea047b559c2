"""An edit of a published file is repaired, even among a thousand files."""

from pathlib import Path

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3


def test_repairs_an_edit_among_a_thousand_files(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    for number in range(1000):
        s3.put(f"dags/team_{number % 90}/dag_{number}.py", f"print({number})\n".encode() * 20)
    daemon = start()
    assert daemon.wait_until_synced()["files_published"] >= 1000

    (target / "team_7" / "dag_97.py").write_text("edited")
    healed = [daemon.sync().get("files_healed", 0) for _ in range(10)]

    assert sum(healed) == 1
