"""
Secrets from settings and files: read again, repaired, and reported once.
"""

from pathlib import Path

import pytest

from git_sync_wrapper.login.secret import Cleaner, Secret
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log
from tests.support.raising import raised


def error_of(secret: Secret) -> SidecarError:
    return raised(SidecarError, secret.read)


def test_logs_a_repair_once_and_again_after_a_change(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "password"
    secret = Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(file))
    for content in ("\nright", "\nright", "right", "\nright"):
        file.write_text(content)
        assert "right" == secret.read()

    said = log.events("secret_repaired")
    assert ["GITSYNC_PASSWORD_FILE"] * 2 == [event["setting"] for event in said]
    assert all("blank lines" in event["finding"] for event in said)


def test_logs_a_doubt_without_the_secret(log: Log) -> None:
    secret = Secret("GITSYNC_PASSWORD", Cleaner(), '"hünter2"')

    assert '"hünter2"' == secret.read()

    (said,) = log.events("secret_doubted")
    assert ("warning", "GITSYNC_PASSWORD") == (said["level"], said["setting"])
    assert "nter2" not in log.text() + repr(secret)


def test_decodes_a_secret_that_looks_like_base64_after_a_refusal(log: Log) -> None:
    secret = Secret("GITSYNC_PASSWORD", Cleaner(), "cmlnaHQ=")
    read = []
    for _ in range(3):
        read.append(secret.read())
        secret.refused()

    assert ["cmlnaHQ=", "right", "cmlnaHQ="] == read
    assert 2 == len(log.events("secret_repaired"))


def test_does_not_decode_new_content_after_a_refusal_of_the_old(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("cmlnaHQ=")
    secret = Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(file))
    secret.read()
    secret.refused()
    file.write_text("plain-password")

    assert "plain-password" == secret.read()
    secret.refused()
    assert "plain-password" == secret.read()


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        ("", "secret_empty", "is empty"),
        ("\n", "secret_empty", "is empty"),
        ("one\ntwo", "secret_malformed", "has several lines"),
        ("a\0b", "secret_malformed", "contains a NUL byte"),
    ],
)
def test_refuses_content_that_cannot_be_passed_to_git(
    tmp_path: Path, content: str, reason: str, said: str
) -> None:
    file = tmp_path / "password"
    file.write_text(content)

    error = error_of(Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(file)))

    assert (reason, f"GITSYNC_PASSWORD_FILE {said}") == (error.reason, error.message)
    assert error.advice


@pytest.mark.parametrize(("name", "why"), [("nothing", "No such file"), ("", "Is a directory")])
def test_reports_a_file_that_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    file = str(tmp_path / name)

    error = error_of(Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=file))

    assert "secret_unreadable" == error.reason
    assert file in error.message and why in error.message
