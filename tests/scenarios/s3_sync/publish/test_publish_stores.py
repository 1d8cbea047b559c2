"""Publishers that meet at a real server, in the moment when each writes the pointer."""

import threading
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.aws.gateway import Gateway
from tests.support.aws.servers import S3Server
from tests.support.aws.writable_s3 import is_write
from tests.support.http.faults import first
from tests.support.s3_sync.forked import ForkServer
from tests.support.s3_sync.publishing import PREFIX, Publishing, write_files


@pytest.mark.timeout(1_800)
def test_of_publishers_that_meet_one_wins_and_no_other_claims_to(
    store: S3Server,
    counts: Counts,
    tmp_path: Path,
    forks: ForkServer,
    more_forks: ForkServer,
) -> None:
    """Also as the first ones, in every second round."""
    bucket = store.new_bucket("meeting")
    with Gateway(store) as gateway:
        for number in range(counts.meetings):
            barrier = threading.Barrier(2, timeout=60)
            gateway.heal()
            gateway.inject(first(barrier.wait), is_write("current.json"), times=2)
            prefix = f"{PREFIX}{number // 2}"
            running = []
            for server, name in ((forks, "one"), (more_forks, "two")):
                files = {"a.py": f"{name} {number}".encode()}
                dags = write_files(tmp_path / name / "dags", files)
                words = [
                    "publish",
                    str(dags),
                    f"s3://{bucket}/{prefix}",
                    "--output",
                    "json",
                ]
                there = Publishing(gateway, bucket, tmp_path / name)
                running.append(server.start(words, there.environment, tmp_path / name))
            codes = [command.wait() for command in running]
            said = [command.out for command in running]
            key = f"{prefix}/current.json"
            got = store.client().get_object(Bucket=bucket, Key=key)["Body"].read()

            assert [0, 3] == sorted(codes), said
            won, lost = sorted(said, key=lambda out: codes[said.index(out)])
            version = got.split(b'"version": "')[1].split(b'"')[0].decode()
            assert version in won, (number, said)
            assert version not in lost, (number, said)
            reasons = ["publish_conflict", "publish_lost"]
            may = reasons[:1] if store.is_atomic else reasons
            assert any(f'"reason": "{reason}"' in lost for reason in may), lost
