"""What each real server serves is read: a listing, snapshots, and releases."""

from pathlib import Path

from tests import Bodies
from tests.scenarios.s3_sync.publish.place import A, Place
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.shelf import RELEASE

LISTED = "plain"
# S3Proxy stores other characters only in the locale of its Java.
B = {"a.py": b"print('b')\n", "docs/more + less.md": b"#\n"}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}


def test_a_listing_a_snapshot_and_a_release_follow_a_change(
    store: S3Server, place: Place, tmp_path: Path
) -> None:
    def put(files: Bodies) -> None:
        place.publish(files)
        for name, body in files.items():
            client.put_object(
                Bucket=place.bucket,
                Key=f"{LISTED}/{name}",
                Body=body,
                ContentEncoding="gzip",  # no server may unpack what it serves
            )

    client = store.client()
    put(A)
    with (
        Daemon(store, place.bucket, tmp_path / "in-place", LISTED) as in_place,
        Daemon(
            store, place.bucket, tmp_path / "snapshot", LISTED, settings=SNAPSHOT
        ) as snapshot,
        Daemon(
            store, place.bucket, tmp_path / "release", PREFIX, settings=RELEASE
        ) as release,
    ):
        shown = {
            in_place: in_place.target,
            snapshot: snapshot.target / "current",
            release: release.target / "current",
        }
        for daemon, folder in shown.items():
            daemon.wait_until_synced(60)
            assert A == published(folder), daemon.log()

        put(B)
        for name in A.keys() - B.keys():
            client.delete_object(Bucket=place.bucket, Key=f"{LISTED}/{name}")
        for daemon, folder in shown.items():
            assert "changed" == daemon.sync()["result"], daemon.log()
            assert B == published(folder), daemon.log()
            assert "unchanged" == daemon.sync()["result"]
            assert [] == daemon.stray_lines
