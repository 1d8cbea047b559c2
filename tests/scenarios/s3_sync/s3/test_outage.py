"""
S3 is down, refuses or throttles: the last good files stay, and the reason is reported.
"""

import html
import json
from pathlib import Path

import pytest

from tests import Texts
from tests.scenarios.s3_sync.conftest import IN_BOTH_LAYOUTS, StartDaemon
from tests.support.aws.fake_s3 import FakeS3, access_denied, error, is_get, is_list
from tests.support.daemon import Daemon
from tests.support.http.faults import answer_with, replace_body
from tests.support.http.loopback import Answer, Match, dead_endpoint
from tests.support.s3_sync.scripted import FILES, Running, published
from tests.support.s3_sync.snapshots import consumed
from tests.support.waiting import wait_until

NO = {
    "access_denied_list": error(403, "AccessDenied", "Access Denied"),
    "credentials_invalid": error(403, "InvalidAccessKeyId", "no such key"),
    "credentials_expired": error(
        400, "ExpiredToken", "The provided token has expired."
    ),
    "clock_skew": error(403, "RequestTimeTooSkewed", "The difference is too large."),
    "bucket_not_found": error(
        404, "NoSuchBucket", "The specified bucket does not exist"
    ),
    "server_error": error(500, "InternalError", "We encountered an internal error."),
    "throttled": error(503, "SlowDown", "Please reduce your request rate."),
    "client_error": error(400, "InvalidRequest", "The request is odd."),
    "access_denied_kms": access_denied("kms:Decrypt", "arn:aws:kms:a:1:key/2", "me"),
    "kms_key_unusable": error(400, "KMS.DisabledException", "The key is disabled."),
    "object_archived": error(403, "InvalidObjectState", "It is archived."),
    "answer_foreign": answer_with(Answer(403, {"Server": "a firewall"}, b"<html>")),
    "redirect_refused": error(307, "Moved", headers={"Location": "http://evil.test/"}),
    "listing_invalid": replace_body(lambda body: body[:-1]),
}
# The reason for an object, where it is another than for a listing.
OF_OBJECTS = {
    "access_denied_list": "access_denied_get",
    "listing_invalid": "object_corrupt",
}


def assert_tells(daemon: Daemon, reason: str, ready: bool) -> None:
    """
    Assert that readiness, status page and metrics report the reason; liveness stays
    200.
    """
    assert daemon.get("/readyz").status == (200 if ready else 503)
    status = daemon.status()
    assert status["reason"] == reason
    assert status["error"]
    assert (
        status["cycles"][0]["reason"] == reason
        or status["cycles"][-1]["reason"] == reason
    )
    assert reason in daemon.get("/").body
    labels = f'{{reason="{reason}",sidecar="s3-sync"}}'
    metrics = daemon.metrics()
    if metrics.get(f"s3_sync_unread_objects{labels}"):  # an object fails, not the cycle
        assert metrics[f"s3_sync_unread_objects{labels}"] == 1
        assert metrics['s3_sync_partial{sidecar="s3-sync"}'] == 1
    else:
        assert metrics[f"sidecar_failures_total{labels}"] >= 1
        assert status["consecutive_failures"] >= 1
    assert daemon.is_alive()


@pytest.mark.parametrize("match", [is_list, is_get("dags/a.py")], ids=["list", "get"])
@pytest.mark.parametrize("name", NO)
def test_keeps_the_last_good_files_and_reports_the_reason(
    synced: Running, name: str, match: Match
) -> None:
    reason = name if match is is_list else OF_OBJECTS.get(name, name)
    before = synced.published
    synced.s3.put("dags/a.py", f"print({name!r}, {match!r})".encode())
    synced.s3.inject(NO[name], match)

    failed = synced.fail()

    assert failed["reason"] == reason
    assert failed["error"]
    assert failed["advice"]
    assert (failed["event"] == "cycle_failed") == ("retry_in_seconds" in failed)
    assert before == synced.published
    assert_tells(synced.daemon, reason, ready=True)
    synced.recover()
    assert synced.s3.files() == synced.published
    assert synced.daemon.reason() is None
    assert synced.daemon.status()["consecutive_failures"] == 0


@IN_BOTH_LAYOUTS
def test_retries_of_unreadable_objects_publish_nothing(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    s3.inject(error(403, "AccessDenied"), lambda request: "/dags/pkg/" in request.path)
    s3.put("dags/c.py", b"c = 1\n")
    s3.put("dags/d.py", b"d = 1\n")
    daemon = start(layout).until_synced()
    record = target / ".s3-sync/published.json"
    before = record.read_bytes(), record.stat().st_mtime_ns

    s3.forget()
    facts = json.loads(before[0])
    assert facts["name"].startswith("partial-") and not facts["revision"]
    assert not facts["aim"].startswith("partial-")
    assert ["partial"] * 3 == [daemon.sync()["result"] for _ in range(3)]

    assert 6 == len(s3.seen(is_get()))
    assert before == (record.read_bytes(), record.stat().st_mtime_ns)
    assert {"a.py", "c.py", "d.py"} == consumed(target).keys()


def test_waits_for_s3_at_start_and_keeps_the_files_during_an_outage(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.stop()
    daemon = start(interval="0.2")
    failed = daemon.wait_for_event("cycle_failed")
    assert failed["reason"] == "endpoint_unreachable"
    assert s3.endpoint.removeprefix("http://") in failed["error"]
    assert failed["advice"]
    assert_tells(daemon, "endpoint_unreachable", ready=False)
    s3.start()
    daemon.wait_until_synced()
    assert published(target) == FILES
    assert daemon.is_ready()

    seen = len(daemon.events)
    s3.stop()
    daemon.wait_for_event("cycle_failed", after=seen, reason="endpoint_unreachable")
    assert published(target) == FILES
    assert_tells(daemon, "endpoint_unreachable", ready=True)
    s3.put("dags/new.py", b"new")
    s3.start()
    wait_until((target / "new.py").exists, "the new file is there")
    assert published(target) == {**FILES, "new.py": b"new"}
    wait_until(lambda: daemon.reason() is None, "no reason is left")


def test_a_change_that_fails_before_its_first_file_leaves_the_revision(
    s3: FakeS3, start: StartDaemon
) -> None:
    paths = [f"dags/f{number}.py" for number in range(12)]
    for path in paths:
        s3.put(path, b"1")
    daemon = start().until_synced()
    before = daemon.get("/readyz").json()
    for path in paths:
        s3.put(path, b"22")
    s3.inject(error(503, "SlowDown"), is_get())

    assert "throttled" == daemon.sync()["reason"]

    after = daemon.get("/readyz").json()
    assert (before["revision"], None) == (after["revision"], after.get("shortfall"))


def test_an_endpoint_that_never_answers_is_named_and_then_a_timeout(
    start: StartDaemon,
) -> None:
    with dead_endpoint() as endpoint:
        daemon = start({"AWS_ENDPOINT_URL": endpoint})

        daemon.wait_for(lambda: daemon.reason() == "cycle_slow", "it is told meanwhile")
        said = daemon.status()["error"]
        assert said.endswith(f"Z it waits for {endpoint[7:]} to list 'dags/'")
        assert html.escape(said) in daemon.get("/").body
        assert "request_timeout" == daemon.wait_for_event("cycle_failed")["reason"]
