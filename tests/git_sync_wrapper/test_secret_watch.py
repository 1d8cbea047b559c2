"""
Credential files that change during the wait after a failure.
"""

import threading
from pathlib import Path

import pytest

from git_sync_wrapper.secret_watch import secret_files, watch_secrets
from tests.git_sync_wrapper.access import given
from tests.runtime.recording import Log


@pytest.mark.parametrize("is_there", [True, False], ids=["replaced", "appears"])
def test_a_changed_password_triggers_one_cycle(tmp_path: Path, log: Log, is_there: bool) -> None:
    password = tmp_path / "password"
    if is_there:
        password.write_text("old")
    woken = threading.Semaphore(0)
    watch_secrets([str(password)], woken.release, period_seconds=0.01)
    assert not woken.acquire(timeout=0.1)

    (tmp_path / "new").write_text("new")
    (tmp_path / "new").rename(password)

    assert woken.acquire(timeout=10)
    assert not woken.acquire(timeout=0.1)
    assert 1 == len(log.events("secret_changed"))


def test_starts_no_thread_without_files() -> None:
    before = threading.active_count()

    watch_secrets([], lambda: None)

    assert before == threading.active_count()


LIST = '[{"url": "https://h/", "username": "u", "password-file": "/c"}]'
FILES = {"GITSYNC_PASSWORD_FILE": "/p", "GIT_SYNC_WRAPPER_USERNAME_FILE": "/u"}


@pytest.mark.parametrize(
    ("repo", "variables", "expected"),
    [
        ("https://h/x", FILES | {"GITSYNC_CREDENTIAL": LIST}, ["/u", "/p", "/c"]),
        ("https://h/x", {"GITSYNC_COOKIE_FILE": "true"}, ["/etc/git-secret/cookie_file"]),
        (
            "git@h:x.git",
            {"GITSYNC_SSH_KEY_FILE": "/k1:/k2", "GITSYNC_SSH_KNOWN_HOSTS_FILE": "/known"},
            ["/k1", "/k2", "/known"],
        ),
    ],
)
def test_watches_secret_files(repo: str, variables: dict[str, str], expected: list[str]) -> None:
    settings, options, _ = given(repo, **variables)

    assert expected == secret_files(settings, options)
