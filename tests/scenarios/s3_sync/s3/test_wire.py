"""
Broken answers, silent servers and bad certificates: nothing wrong is published.

One case of each kind with a whole daemon; tests/s3_sync/s3/test_answers.py has all
cases.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import Texts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_get, is_list
from tests.support.http.certificates import self_signed
from tests.support.http.faults import hang, truncate
from tests.support.http.loopback import Match
from tests.support.s3_sync.scripted import Running, running


@pytest.mark.parametrize("match", [is_list, is_get("dags/a.py")], ids=["list", "get"])
def test_a_truncated_response_changes_nothing(synced: Running, match: Match) -> None:
    failed = synced.withstand(truncate(after=3), match)

    assert failed["reason"] == "connection_lost", failed
    assert failed["error"]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon whose cycles have five seconds."""
    with running(
        tmp_path_factory.mktemp("impatient") / "dags", {"S3_SYNC_TIMEOUT": "5s"}
    ) as one:
        yield one


@pytest.mark.parametrize(
    ("match", "after", "reason"),
    [
        (is_list, None, "cycle_timeout"),
        (is_get("dags/a.py"), None, "object_slow"),
        (is_get("dags/a.py"), 3, "object_slow"),
    ],
    ids=["before a listing", "before a body", "in a body"],
)
def test_a_silent_server_holds_nothing_back_beyond_the_timeout(
    impatient: Running, match: Match, after: int | None, reason: str
) -> None:
    assert impatient.withstand(hang(after), match)["reason"] == reason


@pytest.mark.parametrize(
    ("host", "settings", "advice"),
    [
        ("127.0.0.1", {}, "AWS_CA_BUNDLE"),
        ("localhost", {"AWS_CA_BUNDLE": "{bundle}"}, "a name of the endpoint"),
    ],
    ids=["untrusted", "for another name"],
)
def test_reports_an_invalid_certificate(
    start: StartDaemon, tmp_path: Path, host: str, settings: Texts, advice: str
) -> None:
    context, bundle = self_signed(tmp_path / "tls", "s3.example")
    given = {name: value.format(bundle=bundle) for name, value in settings.items()}
    with FakeS3(tls=context, host=host) as s3:
        failed = start(given, s3=s3).wait_for_event("cycle_failed")

        assert failed["reason"] == "tls_failed"
        assert advice in failed["advice"]
        assert s3.requests == []


def test_follows_a_rotated_ca_bundle(start: StartDaemon, tmp_path: Path) -> None:
    context, old = self_signed(tmp_path / "old", "localhost")
    _, new = self_signed(tmp_path / "new", "localhost")
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(old.read_bytes())
    with FakeS3(tls=context, host="localhost") as s3:
        s3.put("dags/a.py", b"x = 1\n")
        daemon = start({"AWS_CA_BUNDLE": str(bundle)}, s3=s3).until_synced()
        context.load_cert_chain(new, tmp_path / "new/key.pem")
        s3.stop()
        s3.start()
        for content in (old.read_bytes(), b"not a certificate"):
            bundle.write_bytes(content)
            assert "tls_failed" == daemon.sync()["reason"]
        bundle.write_bytes(new.read_bytes())

        ended = daemon.sync()
        assert "cycle_finished" == ended["event"], ended
