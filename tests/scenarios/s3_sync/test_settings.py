"""
The environment of the process: what it takes, what it refuses, and what it says then.
"""

import socket
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.daemon import Daemon, Event
from tests.support.fake_s3 import SECRET_KEY, FakeS3, is_list
from tests.support.scripted import FILES, daemon_for, published
from tests.support.waiting import wait_until

KUBERNETES = {
    "S3_SYNC_SERVICE_HOST": "10.0.0.1",
    "S3_SYNC_SERVICE_PORT": "9811",
    "S3_SYNC_SERVICE_PORT_HTTP": "9811",
    "S3_SYNC_PORT": "tcp://10.0.0.1:9811",
    "S3_SYNC_PORT_9811_TCP": "tcp://10.0.0.1:9811",
    "S3_SYNC_PORT_9811_TCP_PROTO": "tcp",
    "S3_SYNC_PORT_9811_TCP_PORT": "9811",
    "S3_SYNC_PORT_9811_TCP_ADDR": "10.0.0.1",
    "S3_SYNC_LAYOUT_SERVICE_HOST": "10.0.0.2",
    "S3_SYNC_LAYOUT_SERVICE_PORT": "80",
    "S3_SYNC_LAYOUT_PORT": "udp://10.0.0.2:80",
    "S3_SYNC_LAYOUT_PORT_80_UDP_ADDR": "10.0.0.2",
    "S3_SYNC_INTERVAL_SERVICE_HOST": "10.0.0.3",
}


def rejected(daemon: Daemon) -> dict[str, Event]:
    """
    Wait for the end of a daemon that must refuse its settings; what it refused, by name.
    """
    end = daemon.wait_for_exit(15)
    assert end.code == 2, daemon.log()
    assert daemon.stray_lines == []
    lines = daemon.find_events("setting_rejected")
    assert all(line["problem"] for line in lines)
    return {line["setting"]: line for line in lines}


def test_the_published_example_and_nothing_else(s3: FakeS3, target: Path) -> None:
    """
    Four names, endpoint, credentials; the address only because tests stay on loopback.
    """
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


def test_all_problems_are_reported_at_once(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    wrong = {
        "S3_SYNC_TIMEOUT": "soon",
        "S3_SYNC_DELETE": "everything",
        "S3_SYNC_FILE_MODE": "0999",
        "S3_SYNC_ONE_SHOT": "maybe",
        "S3_SYNC_MAX_FAILURES": "-1",
        "S3_SYNC_HTTP_BIND": "9811",
        "S3_SYNC_LOG_FORMAT": "xml",
        "S3_SYNC_LAYUOT": "in-place",
        "S3_SYNC_BUCKET": "dags",
        "AWS_BUCKET": "s3://dags/airflow",
        "DEST_PATH": "relative/path",
    }
    daemon = start(s3, target, wrong, interval="often")

    lines = rejected(daemon)

    assert set(lines) >= {*wrong, "INTERVAL"} - {"S3_SYNC_LAYUOT"}
    for name in ("S3_SYNC_TIMEOUT", "S3_SYNC_DELETE", "S3_SYNC_FILE_MODE", "INTERVAL"):
        assert lines[name]["value"] == {**wrong, "INTERVAL": "often"}[name]
    assert s3.requests == []


def test_missing_settings_are_all_named(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    daemon = start(s3, target, {"AWS_BUCKET": None, "DEST_PATH": None})

    assert set(rejected(daemon)) == {"AWS_BUCKET", "DEST_PATH"}


def test_empty_values_count_as_unset(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    """
    A Helm value that is left empty arrives as an empty variable.
    """
    daemon = start(
        s3, target, {"S3_SYNC_TIMEOUT": "", "S3_SYNC_DELETE": "", "S3_SYNC_ONE_SHOT": ""}
    )

    daemon.wait_until_synced()

    assert published(target) == FILES


@pytest.mark.parametrize("name", ["AWS_BUCKET", "DEST_PATH"])
def test_an_empty_required_setting_is_missing(
    s3: FakeS3, target: Path, start: StartDaemon, name: str
) -> None:
    assert set(rejected(start(s3, target, {name: ""}))) == {name}


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("S3_SYNC_BUCKET", "AWS_BUCKET"),
        ("S3_SYNC_INTERVAL", "INTERVAL"),
        ("S3_SYNC_KEY_PATH", "KEY_PATH"),
        ("S3_SYNC_DEST_PATH", "DEST_PATH"),
        ("S3_SYNC_DELTE", "S3_SYNC_DELETE"),
        ("S3_SYNC_ONESHOT", "S3_SYNC_ONE_SHOT"),
        ("S3_SYNC_LOGLEVEL", "S3_SYNC_LOG_LEVEL"),
        ("S3_SYNC_EXCLUDES", "S3_SYNC_EXCLUDE"),
    ],
)
def test_a_slip_is_answered_with_the_right_name(
    s3: FakeS3, target: Path, start: StartDaemon, typed: str, right: str
) -> None:
    daemon = start(s3, target, {typed: "some-value-of-mine"})

    lines = rejected(daemon)

    assert set(lines) == {typed}
    assert right in lines[typed]["problem"].split() or f"{right}" in lines[typed]["problem"]


def test_a_slip_in_layout_is_not_swallowed(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    """
    An error with the right name once there is a layout to choose, at least a warning before.
    """
    daemon = start(s3, target, {"S3_SYNC_LAYUOT": "in-place"})

    wait_until(
        lambda: daemon.find_events("setting_rejected") or daemon.find_events("setting_unknown"),
        "the slip is named",
    )

    assert "S3_SYNC_LAYUOT" in daemon.log()


@pytest.mark.parametrize("name", ["DEST_PAHT", "DESTPATH", "DEST_DIR"])
def test_a_slip_in_a_required_name_is_pointed_at(
    s3: FakeS3, target: Path, start: StartDaemon, name: str
) -> None:
    daemon = start(s3, target, {"DEST_PATH": None, name: str(target)})

    problem = rejected(daemon)["DEST_PATH"]["problem"]

    assert name in problem or name == "DEST_DIR"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("AWS_BUCKET", "s3://dags-bucket/airflow/dags"),
        ("AWS_BUCKET", "S3://dags-bucket/airflow/dags/"),
        ("KEY_PATH", "s3://dags-bucket/airflow/dags"),
    ],
)
def test_a_url_is_taken_apart_in_the_answer(
    s3: FakeS3, target: Path, start: StartDaemon, name: str, url: str
) -> None:
    daemon = start(s3, target, {name: url})

    problem = rejected(daemon)[name]["problem"]

    assert "AWS_BUCKET=dags-bucket" in problem
    assert "KEY_PATH=airflow/dags" in problem


@pytest.mark.parametrize(
    ("bucket", "word"),
    [
        ("arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap", "multi-region"),
        ("dags--use1-az4--x-s3", "Express"),
        ("arn:aws:s3-object-lambda:us-east-1:123456789012:accesspoint/o", "Lambda"),
    ],
)
def test_buckets_that_are_not_supported_are_refused_by_kind(
    s3: FakeS3, target: Path, start: StartDaemon, bucket: str, word: str
) -> None:
    assert word in rejected(start(s3, target, {"AWS_BUCKET": bucket}))["AWS_BUCKET"]["problem"]


def test_a_strange_name_is_a_warning_only(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    daemon = start(s3, target, {"S3_SYNC_FAVOURITE_COLOUR": "blue-secret", "UNRELATED": "x"})

    daemon.wait_until_synced()

    unknown = daemon.find_events("setting_unknown")
    assert [event["level"] for event in unknown] == ["warning"]
    assert "S3_SYNC_FAVOURITE_COLOUR" in unknown[0].values()
    assert "UNRELATED" not in daemon.log()
    assert "blue-secret" not in daemon.log()


def test_names_that_kubernetes_injects_are_ignored(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(s3, target, KUBERNETES)

    daemon.wait_until_synced()

    assert daemon.find_events("setting_unknown") == []
    assert published(target) == FILES


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "tRuE"])
def test_booleans_in_any_case(s3: FakeS3, target: Path, start: StartDaemon, value: str) -> None:
    daemon = start(s3, target, {"S3_SYNC_ONE_SHOT": value})

    assert daemon.wait_for_exit(15).code == 0
    assert published(target) == FILES


@pytest.mark.parametrize("value", ["/dags/", "//dags", " dags ", "dags//"])
def test_slashes_around_the_prefix_do_not_matter(
    s3: FakeS3, target: Path, start: StartDaemon, value: str
) -> None:
    s3.put("dags-old/never.py", b"never")
    daemon = start(s3, target, key_path=value)

    daemon.wait_until_synced()

    assert published(target) == FILES


def test_an_empty_prefix_is_the_whole_bucket(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    s3.put("top.py", b"top")
    daemon = start(s3, target, key_path="")

    daemon.wait_until_synced()

    assert published(target) == {
        **{f"dags/{name}": body for name, body in FILES.items()},
        "top.py": b"top",
    }


def test_a_port_in_use_is_a_settings_error(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = start(s3, target, {"S3_SYNC_HTTP_BIND": address})

        lines = rejected(daemon)

    assert set(lines) == {"S3_SYNC_HTTP_BIND"}
    assert address in lines["S3_SYNC_HTTP_BIND"]["value"]
    assert published(target) == {}


def test_a_target_that_is_a_file_is_a_settings_error(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    target.write_text("precious")
    daemon = start(s3, target)

    assert set(rejected(daemon)) == {"DEST_PATH"}
    assert target.read_text() == "precious"


@pytest.mark.parametrize("value", ["dags", "./dags", "~/dags", "/", "//", "/tmp/.."])
def test_a_target_must_be_absolute_and_not_the_root(
    s3: FakeS3, target: Path, start: StartDaemon, value: str
) -> None:
    lines = rejected(start(s3, target, {"DEST_PATH": value}))

    assert set(lines) == {"DEST_PATH"}
    assert lines["DEST_PATH"]["value"] == value


@pytest.mark.parametrize("place", ["/sys/s3-sync/dags", "/proc/s3-sync"])
def test_a_target_that_cannot_be_made_is_named(
    s3: FakeS3, target: Path, start: StartDaemon, place: str
) -> None:
    daemon = start(s3, target, {"DEST_PATH": place})

    failed = daemon.wait_for_event("cycle_failed")

    assert failed["reason"] in ("target_denied", "target_failed")
    assert place in failed["error"]
    assert failed["advice"] or failed["reason"] != "target_denied"
    assert daemon.get("/readyz").status == 503


def test_a_target_below_a_file_is_named(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    target.write_text("precious")
    daemon = start(s3, target, {"DEST_PATH": str(target / "below")})

    wait_until(
        lambda: daemon.find_events("cycle_failed") or daemon.find_events("setting_rejected"),
        "it is named",
    )

    assert str(target) in daemon.log()
    assert target.read_text() == "precious"


def test_secrets_are_never_echoed(s3: FakeS3, target: Path, start: StartDaemon) -> None:
    daemon = start(
        s3,
        target,
        {"S3_SYNC_SECRET_ACCESS_KEY": "typed-into-the-wrong-name", "S3_SYNC_DELETE": "wrong"},
        interval="wrong",
    )

    rejected(daemon)

    assert SECRET_KEY not in daemon.log()
    assert "typed-into-the-wrong-name" not in daemon.log()


@pytest.mark.parametrize("rest", ["127.0.0.1:1", "127.0.0.1:port", ""])
def test_credentials_in_an_endpoint_url_are_never_echoed(
    s3: FakeS3, target: Path, start: StartDaemon, rest: str
) -> None:
    endpoint = f"http://someone:pass-word@{rest}"
    daemon = start(s3, target, {"AWS_ENDPOINT_URL": endpoint})

    wait_until(
        lambda: daemon.find_events("cycle_failed") or daemon.find_events("setting_rejected"),
        "it has said something",
    )

    assert "pass-word" not in daemon.log()


@pytest.mark.parametrize("value", ["nonsense", "ftp://host", "http://", "http://host:port"])
def test_an_endpoint_that_is_no_url_is_named(
    s3: FakeS3, target: Path, start: StartDaemon, value: str
) -> None:
    lines = rejected(start(s3, target, {"AWS_ENDPOINT_URL": value}))

    assert set(lines) == {"AWS_ENDPOINT_URL"}


@pytest.mark.parametrize("value", ["420", "0o644", "0888", "0044", "-rw-r--r--"])
def test_a_file_mode_that_yaml_or_a_slip_has_spoilt_is_refused(
    s3: FakeS3, target: Path, start: StartDaemon, value: str
) -> None:
    """
    YAML turns an unquoted 0644 into 420.
    """
    lines = rejected(start(s3, target, {"S3_SYNC_FILE_MODE": value}))

    assert lines["S3_SYNC_FILE_MODE"]["value"] == value


@pytest.mark.parametrize("arguments", [("--version",), ("--help",)])
def test_version_and_help_need_no_settings(
    s3: FakeS3, target: Path, start: StartDaemon, arguments: tuple[str, ...]
) -> None:
    daemon = start(s3, target, {"AWS_BUCKET": None, "DEST_PATH": None}, arguments=arguments)

    assert daemon.wait_for_exit(15).code == 0
    assert daemon.stray_lines


@pytest.mark.parametrize("arguments", [("--nonsense",), ("synch",), ("check", "extra")])
def test_wrong_arguments_are_exit_2(
    s3: FakeS3, target: Path, start: StartDaemon, arguments: tuple[str, ...]
) -> None:
    assert start(s3, target, arguments=arguments).wait_for_exit(15).code == 2
