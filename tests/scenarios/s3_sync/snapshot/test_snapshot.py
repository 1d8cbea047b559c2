"""The snapshot layout as a process: a standby, and a full volume."""

from pathlib import Path

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.machine.volumes import fill_up, small_volume
from tests.support.s3_sync.snapshots import (
    SNAPSHOT,
    B,
    SwappingS3,
    bucket_of_a,
    shown,
    snapshot_leftovers,
    wait_until_shown,
)

__all__ = ["bucket_of_a"]


def test_keeps_the_complete_revision_on_a_full_volume_and_recovers(
    s3: SwappingS3, tmp_path: Path, start: StartDaemon
) -> None:
    with small_volume(tmp_path / "volume", "1m") as volume:
        target = volume / "dags"
        daemon = start(SNAPSHOT, target=target).until_synced()
        s3.swap(B | {"big.bin": bytes(700_000)})
        daemon.sync()
        both = B | {f"many/file{number}.py": b"#" * 3_000 for number in range(60)}
        fill_up(volume / "foreign.bin")
        s3.swap(both | {"big.bin": bytes(700_001)})
        for _ in range(2):
            failed = daemon.sync()
            assert "target_full" == failed["reason"], failed
            assert B | {"big.bin": bytes(700_000)} == shown(target)
            assert 200 == daemon.get("/readyz").status
        daemon.kill()
        daemon.start().wait_for_event("cycle_failed", reason="target_full")
        assert B | {"big.bin": bytes(700_000)} == shown(target)
        (volume / "foreign.bin").unlink()
        s3.swap(both)
        wait_until_shown(daemon, both)
        daemon.sync()

        assert [] == snapshot_leftovers(target)
        daemon.kill()
