"""A 403 says who may not do what, and to what: enough to write the IAM statement."""

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.fake_aws import IDENTITY_ARN, FakeSts, is_action, sts_error
from tests.support.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.loopback import dead_endpoint
from tests.support.waiting import wait_until

BUCKET_ARN = "arn:aws:s3:::dags-bucket"
OBJECT_ARN = "arn:aws:s3:::dags-bucket/dags/a.py"
ENDS = ("cycle_failed", "cycle_finished")
WHOAMI = is_action("GetCallerIdentity")

CASES = {
    "access_denied_list": (is_list, "s3:ListBucket", BUCKET_ARN),
    "access_denied_get": (is_get("dags/a.py"), "s3:GetObject", OBJECT_ARN),
}


@pytest.mark.parametrize("reason", CASES)
def test_asks_sts_once_who_we_are_where_s3_does_not_say(
    s3: FakeS3, start: StartDaemon, reason: str
) -> None:
    match, action, resource = CASES[reason]
    s3.inject(error(403, "AccessDenied", "Access Denied"), match)
    with FakeSts() as sts:
        daemon = start({"AWS_ENDPOINT_URL_STS": sts.endpoint}, interval="0.2")

        failed = daemon.wait_for_event(ENDS)

        assert failed["reason"] == reason
        for fact in (action, resource, IDENTITY_ARN):
            assert fact in failed["error"]
        wait_until(lambda: len(daemon.find_events(failed["event"])) >= 3, "three cycles")
        assert len(sts.seen(WHOAMI)) == 1
        assert daemon.get("/readyz").json()["error"] == daemon.status()["last_error"]["error"]
        assert action in daemon.status()["last_error"]["error"]
        s3.heal()
        daemon.wait_until_synced()


def test_an_sts_that_does_not_say_is_not_fatal(s3: FakeS3, start: StartDaemon) -> None:
    s3.inject(error(403, "AccessDenied", "Access Denied"))
    with FakeSts() as sts:
        sts.inject(sts_error(500, "Internal"))
        daemon = start({"AWS_ENDPOINT_URL_STS": sts.endpoint}, interval="0.2")

        failed = daemon.wait_for_event("cycle_failed")

        assert failed["reason"] == "access_denied_list"
        assert BUCKET_ARN in failed["error"]
        daemon.wait_for_event("cycle_failed", consecutive_failures=3)
        assert len(sts.requests) <= 2


def test_a_silent_sts_delays_the_answer_by_seconds_only(s3: FakeS3, start: StartDaemon) -> None:
    s3.inject(error(403, "AccessDenied", "Access Denied"))
    with dead_endpoint() as endpoint:
        daemon = start({"AWS_ENDPOINT_URL_STS": endpoint}, interval="0.2")

        failed = daemon.wait_for_event("cycle_failed", timeout_seconds=15)

        assert failed["reason"] == "access_denied_list"
        assert BUCKET_ARN in failed["error"]
        daemon.wait_for_event("cycle_failed", consecutive_failures=3, timeout_seconds=8)
        s3.heal()
        daemon.wait_until_synced()
