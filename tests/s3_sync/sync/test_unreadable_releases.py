"""The fallback of a gate beside earlier releases that cannot be read."""

import pytest

from s3_sync.release.format import bundle_key, manifest_key
from tests.runtime.recording import Log
from tests.s3_sync.process import Process
from tests.s3_sync.sync.test_gated import FOLLOW, GATE, release, shelf
from tests.support.aws.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.s3_sync.releases import Release
from tests.support.s3_sync.shelf import Shelf

__all__ = ["shelf"]

# What S3 answers to the request for one object.
UNREADABLE = {
    "object_archived": error(403, "InvalidObjectState"),
    "kms_key_unusable": error(400, "KMS.DisabledException"),
    "access_denied_kms": error(
        403, "AccessDenied", "User: arn:aws:iam::1:role/pod is not authorized to perform: "
        "kms:Decrypt on resource: arn:aws:kms:eu-central-1:1:key/2"),
    "access_denied_get": error(403, "AccessDenied", "Access Denied"),
    # S3 does not reveal to an identity that may not list that the object is missing.
    "access_denied_list": error(
        403, "AccessDenied", "User: arn:aws:iam::1:role/pod is not authorized to perform: "
        "s3:ListBucket on resource: arn:aws:s3:::dags-bucket"),
}  # fmt: skip


def refuse(s3: FakeS3, part: str, reason: str, release: Release) -> None:
    """Refuse to read one object of a release, and every listing."""
    bundle = bundle_key(release.manifest.bundle_sha256)
    key = {"manifest": manifest_key(release.revision), "bundle": bundle}[part]
    s3.inject(error(403, "AccessDenied", "Access Denied"), is_list)
    s3.inject(UNREADABLE[reason], is_get(key))


def is_missing(reason: str, part: str) -> bool:
    """Whether the release counts as missing: without its manifest, nothing is known of it."""
    return (reason, part) == ("access_denied_list", "manifest")


@pytest.mark.parametrize("part", ["manifest", "bundle"])
@pytest.mark.parametrize("reason", UNREADABLE)
def test_an_unreadable_earlier_release_is_passed_over(
    s3: FakeS3, shelf: Shelf, process: Process, log: Log, reason: str, part: str
) -> None:
    shelf.publish(release(1))
    refuse(s3, part, reason, shelf.publish(release(2)))
    shelf.publish(release(3, broken=True))

    process.run(FOLLOW | GATE)

    assert release(1) == process.shown
    assert process.is_ready
    logged = {one["reason"] for one in log.events("fallback_unusable")}
    assert {"release_missing" if is_missing(reason, part) else reason} == logged


@pytest.mark.parametrize("part", ["manifest", "bundle"])
@pytest.mark.parametrize("reason", UNREADABLE)
def test_the_only_earlier_release_is_tried_again_while_it_is_unreadable(
    s3: FakeS3, shelf: Shelf, process: Process, reason: str, part: str
) -> None:
    shelf.publish(release(1, broken=True))
    refuse(s3, part, reason, shelf.publish(release(2)))
    shelf.publish(release(3, broken=True))
    process.start(FOLLOW | GATE)

    if not is_missing(reason, part):
        assert reason == process.fail().reason
    s3.heal()
    process.cycle()

    assert release(2) == process.shown
    assert process.is_ready
