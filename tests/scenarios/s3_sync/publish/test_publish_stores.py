"""Publishers that meet at a real server, in the moment when each writes the pointer."""

import json
import threading
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.publish.place import A, B, C, Place
from tests.scenarios.s3_sync.publish.site import race
from tests.support.aws.gateway import Gateway
from tests.support.aws.servers import S3Server
from tests.support.aws.writable_s3 import is_write
from tests.support.http.faults import first
from tests.support.s3_sync.publishing import Publishing


@pytest.mark.timeout(1_800)
def test_of_publishers_that_meet_one_wins_and_no_other_claims_to(
    store: S3Server,
    counts: Counts,
    tmp_path: Path,
) -> None:
    """Also as the first ones, in every second round."""
    bucket = store.new_bucket("meeting")
    with Gateway(store) as gateway:
        publisher = Publishing(gateway, bucket, tmp_path)
        for number in range(counts.meetings):
            barrier = threading.Barrier(2, timeout=60)
            gateway.heal()
            gateway.inject(first(barrier.wait), is_write("current.json"), times=2)
            prefix = f"{number // 2}/"
            won, lost = race(
                publisher, tmp_path, str(number), f"s3://{bucket}/{prefix}"
            )
            version = json.loads(
                store.client()
                .get_object(Bucket=bucket, Key=f"{prefix}current.json")["Body"]
                .read()
            )["version"]

            assert version in won.out, (number, won.out)
            assert version not in lost.out, (number, lost.out)
            reasons = ["publish_conflict", "publish_lost"]
            may = reasons[:1] if store.is_atomic else reasons
            assert any(f'"reason": "{one}"' in lost.out for one in may), lost.out


def test_publishes_in_a_versioned_bucket_also_after_the_pointer_was_deleted(
    place: Place,
) -> None:
    """But to versitygw, a deleted key is not new; Ceph obeys no condition there."""
    place.version()
    if place.name == "rgw":
        place.refuses("store_unsupported", A)
        return
    for files in (A, B):
        place.publish(files)
        assert files == place.current()
    place.succeed("rollback")
    place.delete("current.json")

    if place.name == "versitygw":
        assert (
            "to another prefix, if versitygw runs with --sidecar"
            in place.refuses("condition_refused", C).err
        )
    else:
        place.publish(C)
        assert C == place.current()
