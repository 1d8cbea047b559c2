"""Faults of server, proxy and network, for each of the three objects of a release."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from tests.s3_sync.process import Process
from tests.s3_sync.release.following import whole
from tests.support.aws.fake_s3 import FakeS3, access_denied, error, redirect
from tests.support.http.faults import (
    chunked,
    close_after,
    close_silently,
    replace_body,
    reset,
    truncate,
    unframed,
    wrong_length,
)
from tests.support.http.loopback import Exchange, Fault
from tests.support.program import own_port
from tests.support.s3_sync.shelf import PARTS, RELEASE, Shelf

OLD = {"a.py": b"old = 1\n", "gone.py": b"gone = 1\n"}
NEW = {"a.py": b"new = 1\n" * 20, "pkg/b.py": b"b = 1\n" * 50, "empty.py": b""}

SPOILT: Mapping[str, tuple[str, Fault]] = {
    "gone": ("release_missing", error(404, "NoSuchKey", "The specified key does not exist.")),
    "denied": ("access_denied_get", access_denied("s3:GetObject", "arn:aws:s3:::b/x", "arn:aws:r")),
    "throttled": ("throttled", error(503, "SlowDown", "Please reduce your request rate.")),
    "failing": ("server_error", error(500, "InternalError", "We encountered an error.")),
    "expired": ("credentials_expired", error(400, "ExpiredToken", "The token has expired.")),
    "archived": ("object_archived", error(403, "InvalidObjectState", "The storage class")),
    "reset": ("connection_lost", reset()),
    "reset in the middle": ("connection_lost", reset(after=3)),
    "truncated": ("connection_lost", truncate(after=3)),
    "shorter than announced": ("connection_lost", wrong_length(5)),
    "chunks without end": ("connection_lost", chunked(end=False)),
    "without a length": ("server_error", unframed()),
    "redirected": ("redirect_refused", redirect(f"http://127.0.0.1:{own_port()}/")),
    "a page instead": ("release_invalid", replace_body(lambda _: b"<html>Sign in</html>")),
    "zeros instead": ("release_invalid", replace_body(lambda body: bytes(len(body)))),
}

ONCE: Mapping[str, Fault] = {
    "500": error(500, "InternalError"),
    "503": error(503, "SlowDown"),
    "reset": reset(),
    "reset in the middle": reset(after=2),
    "kept connection closed": close_silently(),
    "connection closed": close_after(),
    "chunks": chunked(),
}


@pytest.fixture(scope="module")
def s3() -> Iterator[FakeS3]:
    """One server for all tests, because one sidecar runs through them; retries do not wait."""
    with FakeS3() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "uniform", lambda least, most: least)
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def shelf(s3: FakeS3) -> Shelf:
    return Shelf(s3)


@pytest.fixture(scope="module")
def process(s3: FakeS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    one = Process(s3, tmp_path_factory.mktemp("answers"))
    one.start({"KEY_PATH": "dags", **RELEASE})
    yield one
    one.stop()


@pytest.fixture
def behind(s3: FakeS3, shelf: Shelf, process: Process) -> Process:
    """A process that has published the release before the current one."""
    s3.heal()
    shelf.publish(OLD)
    process.cycle()
    assert OLD == process.shown
    shelf.publish(NEW)
    return process


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", SPOILT)
def test_keeps_the_last_good_release_until_the_next_good_response(
    s3: FakeS3, behind: Process, name: str, part: str
) -> None:
    reason, fault = SPOILT[name]
    s3.inject(fault, PARTS[part])

    is_content = reason == "release_invalid" and part == "bundle"
    assert ("bundle_corrupt" if is_content else reason) == behind.fail().reason
    assert OLD == behind.shown
    assert behind.is_ready
    s3.heal()
    assert "changed" == behind.cycle().result
    assert NEW == behind.shown


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ONCE)
def test_a_single_unusual_response_does_not_fail_the_cycle(
    s3: FakeS3, behind: Process, name: str, part: str
) -> None:
    s3.inject(ONCE[name], PARTS[part], times=1)

    assert "changed" == behind.cycle().result
    assert NEW == behind.shown


def shifted(exchange: Exchange) -> None:
    """Answer with the Content-Range of another range than the requested one."""
    answer = exchange.good()
    other = {"Content-Range": f"bytes 1-{len(answer.body)}/9999999"}
    exchange.send(replace(answer, headers={**answer.headers, **other}))


def test_refuses_a_range_of_the_bundle_that_was_not_requested(s3: FakeS3, behind: Process) -> None:
    s3.inject(shifted, PARTS["bundle"])

    assert "bundle_corrupt" == behind.fail().reason
    assert OLD == behind.shown


def test_reads_the_bundle_from_a_server_without_ranges(s3: FakeS3, behind: Process) -> None:
    s3.inject(whole, PARTS["bundle"])
    behind.cycle()

    assert NEW == behind.shown
