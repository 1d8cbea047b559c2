"""Which login git gives to which URL."""

import os
import subprocess
from pathlib import Path

import pytest

from git_sync_wrapper.git import configured
from git_sync_wrapper.logins import Access, _add_pairs
from git_sync_wrapper.reasons import explain

PAIRS = [
    ("https://h.example/org/a", "ua", "pa", "A"),
    ("https://h.example/org/b", "ub", "pb", "B"),
    ("file://", "uf", "pf", "F"),
    ("://", "stray", "ps", "SSH"),
]


def access() -> Access:
    found = Access([], "")
    _add_pairs(found, PAIRS)
    return found


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("https://h.example/org/a", "ua"),
        ("https://h.example/org/b", "ub"),
        ("https://h.example/other", "ub"),
        ("https://evil.example/org/a", None),
        ("file:///srv/a", "uf"),
    ],
)
def test_git_gives_a_login_to_its_path_and_server_and_to_nobody_else(
    tmp_path: Path, url: str, user: str | None
) -> None:
    found = access()
    config = configured({}, [("credential.useHttpPath", "true"), *found.configs])
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "GIT_TERMINAL_PROMPT": "0",
    }
    done = subprocess.run(
        ["git", "credential", "fill"],
        input=f"url={url}\n\n",
        env=environ | config | found.environ,
        capture_output=True,
        text=True,
    )

    assert user == (
        dict(line.split("=", 1) for line in done.stdout.splitlines()).get("username")
        or None
    )


REFUSED = "fatal: Authentication failed for 'https://h.example/org/a/'"


@pytest.mark.parametrize(
    ("said", "blamed"),
    [
        (REFUSED, "user ua, from A"),
        (REFUSED.replace("/a/", "/a2/"), "user ub, from B"),
        # Of GitHub: no URL tells which login this is about.
        (f"remote: Invalid username or token.\n{REFUSED}", "user ua, from A"),
        (REFUSED.replace("h.", "x."), ".netrc or http.extraHeader"),
    ],
)
def test_the_login_that_git_sent_is_blamed(said: str, blamed: str) -> None:
    assert blamed in access().explain(explain(said, "")).message
