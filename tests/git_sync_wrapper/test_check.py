"""
The results of `check`; the scenarios run it as a process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from git_sync_wrapper import check
from tests.git_sync_wrapper.access import given
from tests.support.git.git_server import GitServer, skip_reason
from tests.support.program import own_port
from tests.support.scripts import script

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())

PASSWORD = "canary-4711"
USER = {"GITSYNC_USERNAME": "deploy", "GITSYNC_PASSWORD": PASSWORD}
PINNED = "7" * 40


class Site:
    """A server with one commit, an empty volume, and a program that poses as git-sync."""

    def __init__(self, folder: Path, server: GitServer, said: Callable[[], str]) -> None:
        self.folder, self.server, self._said = folder, server, said
        self.root = folder / "root"
        self.head = server.repository().commit({"a.py": "1"})

    def program(self, body: str, shell: str = "/bin/sh") -> str:
        return script(self.folder / f"program{len(os.listdir(self.folder))}", body, shell)

    def check(self, **variables: str) -> tuple[int, dict[str, str]]:
        """Run `check`; return its exit code, and the mark and text of each check."""
        settings = {
            "PATH": os.environ["PATH"],
            "GITSYNC_ROOT": str(self.root),
            "GITSYNC_LINK": "repo",
            "GITSYNC_REF": "main",
            "GIT_SYNC_WRAPPER_GIT_SYNC": self.program("echo v4.7.1"),
        }
        repo = variables.pop("GITSYNC_REPO", self.server.url())
        read, options, environ = given(repo, **settings | variables)
        code = check.run(read, ["GIT_SYNC_WRAPPER_COLOR"], options, environ)
        lines = self._said().splitlines()
        assert not any(PASSWORD in line for line in lines)
        found: dict[str, str] = {}
        assert "GIT_SYNC_WRAPPER_COLOR is not a setting" in lines.pop(1)
        for line in lines[1:]:
            text = f"{line[2:7].strip()} {line[23:]}"
            if name := line[8:22].strip():
                found[name] = text
            else:
                found[list(found)[-1]] += f" {text}"
        return code, found


@pytest.fixture
def site(
    tmp_path: Path, temporary: Path, server: GitServer, capsys: pytest.CaptureFixture[str]
) -> Site:
    return Site(tmp_path, server, lambda: capsys.readouterr().out)


def test_passes_all_checks_and_writes_nothing(site: Site) -> None:
    site.server.accept(("deploy", PASSWORD))

    code, found = site.check(GIT_SYNC_WRAPPER_GATE="syntax", **USER)

    assert 0 == code, found
    assert {"ok"} == {line.split()[0] for line in found.values()}
    assert {"git-sync", "git", "credentials", "remote", "root", "link", "gate"} == set(found)
    assert "ok user deploy, from GITSYNC_PASSWORD" == found["credentials"]
    assert f"main is {site.head}" in found["remote"]
    assert not site.root.exists()


def test_does_not_show_a_token_given_as_the_username(site: Site) -> None:
    site.server.accept((PASSWORD, "x-oauth-basic"))

    code, found = site.check(GITSYNC_USERNAME=PASSWORD, GITSYNC_PASSWORD="x-oauth-basic")

    assert (0, "ok a token, from GITSYNC_PASSWORD") == (code, found["credentials"])


def test_a_local_repository_needs_no_credentials(site: Site) -> None:
    code, found = site.check(GITSYNC_REPO=site.server.repository().url)

    assert (0, "ok none: anonymous access") == (code, found["credentials"])
    assert site.head in found["remote"]


def test_reports_a_pinned_commit_as_unverified(site: Site) -> None:
    code, found = site.check(GITSYNC_REF=PINNED)

    assert 0 == code
    assert f"only a sync can verify that it has {PINNED}" in found["remote"]


def test_a_pinned_commit_needs_no_default_branch(site: Site) -> None:
    site.server.repository().git("symbolic-ref", "HEAD", "refs/heads/gone")

    code, found = site.check(GITSYNC_REF=PINNED)

    assert 0 == code, found


BAD: dict[str, tuple[str, str, Callable[[Site], dict[str, str]]]] = {
    "wrong password": (
        "remote",
        "credentials_refused",
        lambda site: site.server.accept(("deploy", "another")) or USER,
    ),
    "no password": (
        "remote",
        "login_missing",
        lambda site: site.server.accept(("deploy", PASSWORD)) or {},
    ),
    "password file missing": (
        "credentials",
        "secret_unreadable",
        lambda _: {"GITSYNC_USERNAME": "deploy", "GITSYNC_PASSWORD_FILE": "/nowhere/password"},
    ),
    "no such ref": ("remote", "ref_not_found", lambda _: {"GITSYNC_REF": "gone"}),
    "no such repository": (
        "remote",
        "repository_not_found",
        lambda site: {"GITSYNC_REPO": site.server.url("gone.git")},
    ),
    "connection refused": (
        "remote",
        "remote_unreachable",
        lambda _: {"GITSYNC_REPO": f"http://127.0.0.1:{own_port()}/dags.git"},
    ),
    "no git": ("git", "cannot run /nowhere/git", lambda _: {"GITSYNC_GIT": "/nowhere/git"}),
    "not git-sync 4": (
        "git-sync",
        "is not version 4",
        lambda site: {"GIT_SYNC_WRAPPER_GIT_SYNC": site.program("echo v3.6.5")},
    ),
    "gate's command cannot be run": (
        "gate",
        "gate_undecided",
        lambda site: {
            "GIT_SYNC_WRAPPER_GATE": "command",
            "GIT_SYNC_WRAPPER_GATE_COMMAND": site.program("", "/nowhere/sh"),
        },
    ),
    # The kernel refuses this even to root.
    "volume that cannot be written": (
        "root",
        "target_",
        lambda _: {"GITSYNC_ROOT": "/proc/self/dags"},
    ),
    "link on another volume": (
        "root",
        "link_elsewhere",
        lambda site: site.root.mkdir() or {"GITSYNC_LINK": "/proc/self/repo"},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_reports_each_problem_under_its_check(site: Site, name: str) -> None:
    check_name, reason, spoil = BAD[name]

    code, found = site.check(**spoil(site))

    assert 3 == code, found
    assert found[check_name].startswith("FAIL "), found
    assert reason in found[check_name]
    assert not site.root.exists() or [] == os.listdir(site.root)


def test_warns_about_a_folder_in_place_of_the_link(site: Site) -> None:
    (site.root / "repo/something").mkdir(parents=True)

    code, found = site.check()

    assert 0 == code
    assert found["link"].startswith("?? ")


def test_says_that_a_link_of_git_sync_is_replaced(site: Site) -> None:
    (site.root / ".worktrees/1/dags").mkdir(parents=True)
    (site.root / "repo").symlink_to(".worktrees/1")

    code, found = site.check()

    text = f"ok {site.root}/repo is a link to .worktrees/1: the first commit replaces it"
    assert (0, text) == (code, found["link"])


def test_does_not_judge_the_link_in_passthrough_mode(site: Site) -> None:
    (site.root / "repo/something").mkdir(parents=True)

    code, found = site.check(GIT_SYNC_WRAPPER_MODE="passthrough")

    assert 0 == code
    assert found["root"].startswith("ok ")
    assert "link" not in found
