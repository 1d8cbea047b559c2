"""
Files of credentials that change while a failure is waited out.
"""

import threading
from pathlib import Path

import pytest

from git_sync_wrapper import secret_watch
from git_sync_wrapper.secret_watch import secret_files, watch_secrets
from tests.git_sync_wrapper.access import given
from tests.runtime.recording import Log


@pytest.mark.parametrize("is_there", [True, False], ids=["replaced", "appears"])
def test_a_password_that_changes_asks_for_a_cycle_once(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setattr(secret_watch, "WATCH_SECONDS", 0.01)
    password = tmp_path / "password"
    if is_there:
        password.write_text("old")
    woken = threading.Semaphore(0)
    watch_secrets([str(password)], woken.release)
    assert not woken.acquire(timeout=0.1)

    (tmp_path / "new").write_text("new")
    (tmp_path / "new").rename(password)

    assert woken.acquire(timeout=10)
    assert not woken.acquire(timeout=0.1)
    assert 1 == len(log.events("secret_changed"))


def test_no_thread_watches_nothing() -> None:
    before = threading.active_count()

    watch_secrets([], lambda: None)

    assert before == threading.active_count()


def test_the_files_of_all_who_log_in_are_watched() -> None:
    credential = '[{"url": "https://h/", "username": "u", "password-file": "/c"}]'
    settings, options, _ = given(
        "https://h/x",
        GITSYNC_PASSWORD_FILE="/p",
        GIT_SYNC_WRAPPER_USERNAME_FILE="/u",
        GITSYNC_CREDENTIAL=credential,
    )

    assert ["/u", "/p", "/c"] == secret_files(settings, options)


def test_a_cookie_file_is_watched() -> None:
    settings, options, _ = given("https://h/x", GITSYNC_COOKIE_FILE="true")

    assert ["/etc/git-secret/cookie_file"] == secret_files(settings, options)


def test_keys_are_watched_where_ssh_needs_them() -> None:
    settings, options, _ = given("git@h:x.git", GITSYNC_SSH_KEY_FILE="/k1:/k2")

    assert ["/k1", "/k2", options.ssh_known_hosts_file] == secret_files(settings, options)
