"""The environment and arguments of the process: accepted and rejected settings."""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_list
from tests.support.s3_sync.scripted import FILES, daemon_for, published


def test_the_published_example_works_without_other_settings(
    s3: FakeS3, target: Path
) -> None:
    """
    Four names, endpoint and credentials; the bind address only keeps tests on loopback.
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
        assert daemon.is_ready()
        assert len(daemon.find_events("cycle_finished")) == 1
        assert {event["level"] for event in daemon.events} == {"info"}
        assert daemon.stray_lines == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--version",), 0), (("--help",), 0), (("--nonsense",), 2), (("synch",), 2),
     (("check", "extra"), 2)],
)  # fmt: skip
def test_version_and_help_need_no_settings_and_wrong_arguments_are_refused(
    start: StartDaemon, arguments: tuple[str, ...], code: int
) -> None:
    daemon = start(
        {"AWS_BUCKET": None, "DEST_PATH": None} if code == 0 else None,
        arguments=arguments,
    )

    assert code == daemon.wait_for_exit().code
    assert daemon.stray_lines


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEST_PATH", "/etc/passwd"),
        ("AWS_ENDPOINT_URL", "minio:9000"),
        ("AWS_ENDPOINT_URL_S3", "http://user:hunter2@[::1"),
    ],
)
def test_bad_input_exits_with_code_2_and_names_the_setting(
    start: StartDaemon, name: str, value: str
) -> None:
    daemon = start({name: value})

    assert 2 == daemon.wait_for_exit().code
    assert name in daemon.log()
    assert "hunter2" not in daemon.log()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("region = eu.central", "region_invalid"),
        ("endpoint_url = ftp://minio.example", "endpoint_invalid"),
    ],
)
def test_a_wrong_entry_of_an_aws_profile_is_told_by_its_name(
    start: StartDaemon, tmp_path: Path, entry: str, reason: str
) -> None:
    profile = tmp_path / "config"
    profile.write_text(f"[default]\n{entry}\n")
    failed = start(
        {
            **dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")),
            "AWS_CONFIG_FILE": str(profile),
        }
    ).wait_for_event("cycle_failed")

    assert reason == failed["reason"], failed


def test_a_signing_key_is_no_setting_of_the_daemon(start: StartDaemon) -> None:
    daemon = start({"S3_SYNC_SIGN_KEY": "/nowhere/key.pem"}).until_synced()

    assert ["S3_SYNC_SIGN_KEY"] == [
        e["setting"] for e in daemon.find_events("setting_unknown")
    ]
