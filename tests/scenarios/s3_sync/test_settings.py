"""The environment and arguments of the process: accepted and rejected settings."""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_list
from tests.support.daemon import Daemon, Event
from tests.support.s3_sync.scripted import FILES, daemon_for, published


def rejected(daemon: Daemon) -> dict[str, Event]:
    """Wait for a daemon to reject its settings; return the rejected ones by name."""
    end = daemon.wait_for_exit()
    assert end.code == 2, daemon.log()
    assert daemon.stray_lines == []
    lines = daemon.find_events("setting_rejected")
    assert all(line["problem"] for line in lines)
    return {line["setting"]: line for line in lines}


def test_the_published_example_works_without_other_settings(s3: FakeS3, target: Path) -> None:
    """Four names, endpoint and credentials; the bind address only keeps tests on loopback."""
    daemon = daemon_for(s3, target)
    daemon.environment = {
        "AWS_BUCKET": s3.bucket,
        "KEY_PATH": "dags",
        "DEST_PATH": str(target),
        "INTERVAL": "1",
        "S3_SYNC_HTTP_BIND": "127.0.0.1:0",
        **s3.environment(),
    }
    with daemon:
        daemon.wait_until_synced()
        s3.wait_for(is_list, count=3)

        assert published(target) == FILES
        assert daemon.get("/readyz").status == 200
        assert len(daemon.find_events("cycle_finished")) == 1
        assert {event["level"] for event in daemon.events} == {"info"}
        assert daemon.stray_lines == []


def test_reports_an_unsupported_kind_of_proxy(s3: FakeS3, start: StartDaemon) -> None:
    proxy = {"HTTP_PROXY": "https://user:s3cr3t@proxy.example:3128", "NO_PROXY": ""}

    daemon = start(proxy)

    assert 2 == daemon.wait_for_exit().code
    rejected = daemon.wait_for_event("setting_rejected", setting="HTTP_PROXY")
    assert "https://***@proxy.example:3128" == rejected["value"]
    assert rejected["problem"].startswith("is not http://HOST:PORT")
    assert [] == s3.requests
    assert "s3cr3t" not in daemon.log()


@pytest.mark.parametrize("glob", ["pkg/", "/pkg/*", "'pkg/*'", '"pkg/*"'])
@pytest.mark.parametrize("name", ["S3_SYNC_INCLUDE", "S3_SYNC_EXCLUDE"])
def test_rejects_a_pattern_that_can_match_no_key(start: StartDaemon, name: str, glob: str) -> None:
    lines = rejected(start({name: f"*.py, {glob}"}))

    assert {name: glob} == {line["setting"]: line["value"] for line in lines.values()}
    assert "can match no key: write it as in pkg/*" in lines[name]["problem"]


def test_warns_once_of_a_pattern_that_matches_nothing(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.put("dags/notes.txt", b"notes")
    patterns = {"S3_SYNC_INCLUDE": "*.py, *.sql", "S3_SYNC_EXCLUDE": "pkg, *.txt, pkg/e*"}
    daemon = start(patterns).until_synced()
    s3.put("dags/more.py", b"more")
    daemon.sync()

    unused = [(event["setting"], event["value"]) for event in daemon.find_events("pattern_unused")]
    assert [("S3_SYNC_INCLUDE", "*.sql"), ("S3_SYNC_EXCLUDE", "pkg")] == unused
    assert {"a.py", "more.py", "pkg/b.py"} == published(target).keys()


@pytest.mark.parametrize("arguments", [("--version",), ("--help",)])
def test_version_and_help_need_no_settings(start: StartDaemon, arguments: tuple[str, ...]) -> None:
    daemon = start({"AWS_BUCKET": None, "DEST_PATH": None}, arguments=arguments)

    assert daemon.wait_for_exit().code == 0
    assert daemon.stray_lines


@pytest.mark.parametrize("arguments", [("--nonsense",), ("synch",), ("check", "extra")])
def test_wrong_arguments_exit_with_code_2(start: StartDaemon, arguments: tuple[str, ...]) -> None:
    assert start(arguments=arguments).wait_for_exit().code == 2


def test_a_signing_key_is_no_setting_of_the_daemon(start: StartDaemon) -> None:
    daemon = start({"S3_SYNC_SIGN_KEY": "/nowhere/key.pem"}).until_synced()

    assert ["S3_SYNC_SIGN_KEY"] == [e["setting"] for e in daemon.find_events("setting_unknown")]
