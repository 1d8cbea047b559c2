"""
A 403 says who may not do what, and to what: enough to write the IAM statement.
"""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.fake_aws import IDENTITY_ARN, FakeSts, is_action, sts_error
from tests.support.fake_s3 import FakeS3, access_denied, error, is_get, is_list
from tests.support.faults import answer_with
from tests.support.loopback import Answer, Fault, Match, dead_endpoint

BUCKET_ARN = "arn:aws:s3:::dags-bucket"
OBJECT_ARN = "arn:aws:s3:::dags-bucket/dags/a.py"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
OTHER_ARN = "arn:aws:sts::210987654321:assumed-role/someone/else"
KMS_NAMED = (
    f"User: {OTHER_ARN} is not authorized to perform: kms:Decrypt on resource: {KEY_ARN} "
    "because no identity-based policy allows the kms:Decrypt action"
)
KMS_OLD = (
    "The ciphertext refers to a customer master key that does not exist, does not exist in "
    "this region, or you are not allowed to access."
)
WHOAMI = is_action("GetCallerIdentity")

CASES = {
    "list": (is_list, "s3:ListBucket", BUCKET_ARN),
    "get": (is_get("dags/a.py"), "s3:GetObject", OBJECT_ARN),
}


@pytest.mark.parametrize("case", CASES)
def test_names_action_resource_and_the_identity_of_s3s_own_message(
    s3: FakeS3, target: Path, start: StartDaemon, case: str
) -> None:
    match, action, resource = CASES[case]
    s3.inject(access_denied(action, resource, OTHER_ARN), match)
    with FakeSts() as sts:
        daemon = start(s3, target, {"AWS_ENDPOINT_URL_STS": sts.endpoint})

        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"] == "access_denied"
        for fact in (action, resource, OTHER_ARN):
            assert fact in failed["error"]
        assert action in failed["advice"]
        assert sts.requests == []


@pytest.mark.parametrize("case", CASES)
def test_asks_sts_once_who_we_are_where_s3_does_not_say(
    s3: FakeS3, target: Path, start: StartDaemon, case: str
) -> None:
    match, action, resource = CASES[case]
    s3.inject(error(403, "AccessDenied", "Access Denied"), match)
    with FakeSts() as sts:
        daemon = start(s3, target, {"AWS_ENDPOINT_URL_STS": sts.endpoint}, interval="0.2")

        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"] == "access_denied"
        for fact in (action, resource, IDENTITY_ARN):
            assert fact in failed["error"]
        daemon.wait_for_event("cycle_failed", consecutive_failures=3)
        assert len(sts.seen(WHOAMI)) == 1
        assert daemon.get("/readyz").json()["error"] == daemon.status()["last_error"]["error"]
        assert action in daemon.status()["last_error"]["error"]
        s3.heal()
        daemon.wait_until_synced()


@pytest.mark.parametrize("trouble", [sts_error(403, "AccessDenied"), sts_error(500, "Internal")])
def test_an_sts_that_does_not_say_is_not_fatal(
    s3: FakeS3, target: Path, start: StartDaemon, trouble: Fault
) -> None:
    s3.inject(error(403, "AccessDenied", "Access Denied"))
    with FakeSts() as sts:
        sts.inject(trouble)
        daemon = start(s3, target, {"AWS_ENDPOINT_URL_STS": sts.endpoint}, interval="0.2")

        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"] == "access_denied"
        assert BUCKET_ARN in failed["error"]
        daemon.wait_for_event("cycle_failed", consecutive_failures=3)
        assert len(sts.requests) <= 2


def test_a_silent_sts_delays_the_answer_by_seconds_only(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.inject(error(403, "AccessDenied", "Access Denied"))
    with dead_endpoint() as endpoint:
        daemon = start(s3, target, {"AWS_ENDPOINT_URL_STS": endpoint}, interval="0.2")

        failed = daemon.wait_for_event("cycle_failed", timeout_seconds=15)

        assert failed["reason"] == "access_denied"
        assert BUCKET_ARN in failed["error"]
        daemon.wait_for_event("cycle_failed", consecutive_failures=3, timeout_seconds=8)
        s3.heal()
        daemon.wait_until_synced()


@pytest.mark.parametrize("message", [KMS_NAMED, KMS_OLD], ids=["named", "old"])
def test_a_refusal_of_kms_names_kms_decrypt(
    s3: FakeS3, target: Path, start: StartDaemon, message: str
) -> None:
    s3.inject(error(403, "AccessDenied", message), is_get("dags/a.py"))
    with FakeSts() as sts:
        daemon = start(s3, target, {"AWS_ENDPOINT_URL_STS": sts.endpoint})

        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"] == "access_denied"
        assert "kms:Decrypt" in failed["error"] + failed["advice"]
        if KEY_ARN in message:
            assert KEY_ARN in failed["error"]
            assert OTHER_ARN in failed["error"]
        assert "dags/a.py" in failed["error"]


@pytest.mark.parametrize("match", [is_list, is_get()], ids=["list", "get"])
def test_a_403_without_a_document_is_explained_too(
    s3: FakeS3, target: Path, start: StartDaemon, match: Match
) -> None:
    """
    A firewall or a proxy says no in HTML.
    """
    s3.inject(answer_with(Answer(403, {"Content-Type": "text/html"}, b"<h1>No</h1>")), match)
    with FakeSts() as sts:
        daemon = start(s3, target, {"AWS_ENDPOINT_URL_STS": sts.endpoint})

        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"] == "access_denied"
        assert "403" in failed["error"]
