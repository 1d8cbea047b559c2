"""A prefix without a file to sync: what is there is counted, what is beside it is named."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon
from tests.support.s3_sync.scripted import FILES, published


@pytest.mark.parametrize(
    ("keys", "settings", "said"),
    [
        (["dags/a//b.py", "dags/../c.py"], {}, "2 skipped (unsafe_path)"),
        (["dags/a.txt"], {"S3_SYNC_INCLUDE": "*.py"}, "1 left out by S3_SYNC_INCLUDE"),
        (["dags/a.py", "dags/.s3-sync/x"], {"S3_SYNC_EXCLUDE": "a*"}, "1 skipped (reserved), 1 le"),
        (["dags/"], {}, "no key begins with it; beside it are dags/"),
        (["other.txt", "/dags/a.py"], {}, "no key begins with it; beside it are /, other.txt"),
        ([*"abcdef", "Dags/a.py"], {}, "beside it are Dags/, "),
        ([], {}, "no key begins with it; beside it are no others"),
        ([f"dags/bundles/{'0' * 64}.zip"], {}, "1 skipped (release)"),
    ],
)
def test_counts_what_is_there(
    s3: FakeS3, start: StartDaemon, keys: list[str], settings: Mapping[str, str], said: str
) -> None:
    s3.objects.clear()
    s3.put_each(keys, b"x = 1\n")

    failed = start(settings).wait_for_event("cycle_failed")

    assert ("source_empty", True) == (failed["reason"], said in failed["error"]), failed
    assert ("release" in said) == ("S3_SYNC_SOURCE=release" in failed["advice"])


def test_an_empty_listing_deletes_nothing(s3: FakeS3, start: StartDaemon, target: Path) -> None:
    daemon = start().until_synced()
    s3.objects.clear()

    assert "source_empty" == daemon.sync()["reason"]
    assert FILES == published(target)
    assert 200 == daemon.get("/readyz").status


def test_names_what_is_beside_the_prefix(server: S3Server, tmp_path: Path) -> None:
    """The folder is written in another way, or one level off."""
    bucket = server.new_bucket("empty")
    for key in ("team/Dags/a.py", "team/dags-old/b.py", "team/readme.md", "logs/x"):
        server.client().put_object(Bucket=bucket, Key=key, Body=b"x = 1\n")
    with Daemon(server, bucket, tmp_path / "dags", "team/dags") as daemon:
        failed = daemon.wait_for_event("cycle_failed")

    assert "source_empty" == failed["reason"]
    assert f"s3://{bucket}/team/dags/ contains no files to sync" in failed["error"]
    beside = failed["error"].partition("beside it are ")[2]
    assert ["Dags/", "dags-old/", "readme.md"] == sorted(
        name.removeprefix("team/") for name in beside.split(", ")
    )
