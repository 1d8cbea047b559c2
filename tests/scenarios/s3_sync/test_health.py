"""The metrics and the readiness of a running daemon."""

from pathlib import Path

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, error
from tests.support.http.faults import hang
from tests.support.s3_sync.scripted import FILES, Running
from tests.support.s3_sync.snapshots import SNAPSHOT


def test_metrics_count_published_healed_deleted_and_skipped_files(
    synced: Running,
) -> None:
    before = synced.daemon.metrics()
    of_parts = f"{'0' * 32}-2"
    synced.s3.put("dags/new.py", b"12345", etag=of_parts)
    synced.s3.put("dags//double", b"x")
    synced.s3.put("dags/pkg/empty.py", b"", etag=of_parts)
    synced.daemon.sync()
    skipped = 's3_sync_skipped_keys{reason="unsafe_path",sidecar="s3-sync"}'
    told = synced.daemon.metrics()
    assert 1 == told[skipped]
    assert 2 == told['s3_sync_unverified_files{sidecar="s3-sync"}']
    synced.s3.delete("dags//double")
    (synced.daemon.target / "new.py").unlink()
    synced.daemon.sync()
    synced.daemon.sync()
    synced.s3.delete("dags/new.py")
    synced.daemon.sync()

    after = synced.daemon.metrics()

    def grown(name: str) -> float:
        full = f'{name}{{sidecar="s3-sync"}}'
        return after[full] - before.get(full, 0)

    assert grown("s3_sync_published_files_total") >= 1
    assert grown("s3_sync_healed_files_total") == 1
    assert grown("s3_sync_deleted_files_total") == 1
    assert grown("s3_sync_downloaded_bytes_total") == 10
    assert after['s3_sync_managed_files{sidecar="s3-sync"}'] == len(FILES)
    assert after[skipped] == 0
    assert after['s3_sync_requests_total{operation="list",sidecar="s3-sync"}'] >= 5
    assert after['sidecar_ready{sidecar="s3-sync"}'] == 1


NO_FILES = {
    "name_too_long": "x" * 256,
    "too_deep": "d/" * 200 + "x",
    "file_and_folder": "a.py",
    "reserved": ".S3-sync/x",
    "release": f"bundles/{'0' * 64}.zip",
}


def test_keys_that_cannot_become_files_are_counted_by_reason(synced: Running) -> None:
    synced.s3.put_each((f"dags/{path}" for path in NO_FILES.values()), b"x\n")
    synced.s3.put("dags/a.py/b.py", b"b\n")
    synced.s3.put("dags/new.py", b"new\n", etag="")

    ended = synced.daemon.sync()

    counts = synced.daemon.metrics()
    names = [
        f's3_sync_skipped_keys{{reason="{one}",sidecar="s3-sync"}}' for one in NO_FILES
    ]
    assert [1] * len(NO_FILES) == [counts[name] for name in names]
    assert ("partial", "etag_missing") == (ended["result"], ended["reason"])
    assert {"a.py/b.py", "pkg/b.py", "pkg/empty.py"} == synced.published.keys()
    synced.s3.delete(*(f"dags/{path}" for path in NO_FILES.values()))
    synced.s3.delete("dags/a.py/b.py", "dags/new.py")
    synced.s3.put_all(FILES, "dags/")


def test_a_volume_that_is_lost_is_not_one_where_nothing_was_published_yet(
    target: Path, start: StartDaemon
) -> None:
    daemon = start().until_synced()
    assert str(target) == daemon.status()["target"]
    target.rename(target.with_name("away"))
    target.symlink_to("nowhere")

    assert "target_failed" == daemon.sync()["reason"]
    assert (
        f"{target} cannot be read: No such file or directory"
        == daemon.status()["problem"]
    )


def test_before_the_first_cycle_has_ended_the_state_of_the_volume_is_told(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.inject(hang())
    daemon = start(SNAPSHOT)
    daemon.wait_for(lambda: daemon.reason() == "nothing_published", "it is told")
    s3.heal()
    daemon.wait_until_synced()

    s3.inject(error(500, "InternalError"))
    (target / "current/a.py").unlink()
    assert "cycle_failed" == daemon.sync()["event"]
    daemon.kill()
    s3.inject(hang())
    daemon.start().wait_for(lambda: daemon.reason() == "files_damaged", "it is told")
    assert 503 == daemon.get("/readyz").status
    s3.heal()
    daemon.wait_for(lambda: daemon.reason() is None, "it is repaired")
    daemon.kill()
    (target / "current").unlink()
    (target / "current").symlink_to("/etc")
    s3.inject(hang())
    daemon.start().wait_until_ready()  # the link is set again, as after a kill
