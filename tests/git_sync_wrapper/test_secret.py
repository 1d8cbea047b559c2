"""
Secrets of settings and files: read anew, mended, and talked about once.
"""

from pathlib import Path

import pytest

from git_sync_wrapper.hygiene import mend_password
from git_sync_wrapper.secret import Cleaner, Secret
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log


def error_of(secret: Secret) -> SidecarError:
    with pytest.raises(SidecarError) as raised:
        secret.read()
    return raised.value


def test_a_file_is_read_at_each_use(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    secret = Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(file))
    read = [secret.read()]
    file.write_text("second\n")
    read.append(secret.read())

    assert ["first", "second"] == read
    assert [] == log.events("secret_mended") + log.events("secret_doubted")


def test_a_value_needs_no_file() -> None:
    assert "päss" == Secret("GITSYNC_PASSWORD", Cleaner(), "päss").read()


def test_what_is_odd_is_said_once_and_again_when_it_changes(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "password"
    secret = Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(file))
    for content in ("\nright", "\nright", "right", "\nright"):
        file.write_text(content)
        assert "right" == secret.read()

    said = log.events("secret_mended")
    assert ["GITSYNC_PASSWORD_FILE"] * 2 == [event["setting"] for event in said]
    assert all("blank lines" in event["finding"] for event in said)


def test_doubts_are_said_without_the_secret(log: Log) -> None:
    Secret("GITSYNC_PASSWORD", Cleaner(), '"hunter2"').read()

    (said,) = log.events("secret_doubted")
    assert ("warning", "GITSYNC_PASSWORD") == (said["level"], said["setting"])
    assert "hunter2" not in log.text()


def test_what_looks_like_base64_is_decoded_when_it_was_refused(log: Log) -> None:
    secret = Secret("GITSYNC_PASSWORD", Cleaner(), "cmlnaHQ=")
    read = []
    for _ in range(3):
        read.append(secret.read())
        secret.refused()

    assert ["cmlnaHQ=", "right", "cmlnaHQ="] == read
    assert 2 == len(log.events("secret_mended"))


def test_a_new_content_is_not_decoded_for_the_old_ones_sake(tmp_path: Path) -> None:
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
    ("content", "reason"),
    [
        ("", "secret_empty"),
        ("\n", "secret_empty"),
        ("one\ntwo", "secret_malformed"),
        ("a\0b", "secret_malformed"),
    ],
)
def test_what_git_cannot_be_told_is_an_error(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "password"
    file.write_text(content)

    error = error_of(Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(file)))

    assert (reason, True) == (error.reason, "GITSYNC_PASSWORD_FILE" in error.message)
    assert error.advice


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    error = error_of(Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(tmp_path / "nothing")))

    assert "secret_unreadable" == error.reason
    assert str(tmp_path / "nothing") in error.message and "No such file" in error.message


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    error = error_of(Secret("GITSYNC_PASSWORD_FILE", Cleaner(), file=str(tmp_path)))

    assert ("secret_unreadable", True) == (error.reason, "Is a directory" in error.message)


def test_nothing_secret_is_shown() -> None:
    cleaner = Cleaner()
    cleaner.clean("x", b"hunter2", mend_password)

    assert "hunter2" not in repr(Secret("x", cleaner, "hunter2"))
