"""
`git-sync-wrapper check` says what is wrong before a pod does, and publishes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.git_sync_wrapper.situations import damage_link
from tests.support.git_sync import GitSite
from tests.support.loopback import closed_port
from tests.support.waiting import wait_until

PASSWORD = "canary-4711"
USER = {"GITSYNC_USERNAME": "deploy", "GITSYNC_PASSWORD": PASSWORD}
PINNED = "7" * 40


def check(here: GitSite, *arguments: str, **settings: str | None) -> tuple[int, str]:
    process = here.wrapper("check", *arguments, **settings)
    code = process.wait_for_exit(120).code
    said = process.log()
    assert PASSWORD not in said
    assert "Traceback" not in said
    return code, said


def lines(said: str) -> dict[str, str]:
    """The lines by the name of the check: mark and text."""
    found = {}
    for line in said.splitlines():
        mark, name, text = line[2:7].strip(), line[8:22].strip(), line[23:]
        if line.startswith("  ") and name:
            found[name] = f"{mark} {text}"
    return found


def test_all_is_well_and_nothing_is_written(here: GitSite) -> None:
    here.server.accept(("deploy", PASSWORD))
    head = here.repository.head()

    code, said = check(here, GIT_SYNC_WRAPPER_GATE="syntax", **USER)

    assert 0 == code, said
    found = lines(said)
    assert {"ok"} == {line.split()[0] for line in found.values()}, said
    assert {"git-sync", "git", "credentials", "remote", "root", "link", "gate"} == set(found)
    assert "ok user deploy, by GITSYNC_PASSWORD" == found["credentials"]
    assert f"{here.repository.branch} is {head}" in found["remote"]
    assert not here.root.exists()


def test_a_token_instead_of_the_user_is_not_shown(here: GitSite) -> None:
    here.server.accept((PASSWORD, "x-oauth-basic"))

    code, said = check(here, GITSYNC_USERNAME=PASSWORD, GITSYNC_PASSWORD="x-oauth-basic")

    assert 0 == code, said
    assert "ok a token, by GITSYNC_PASSWORD" == lines(said)["credentials"]


def test_flags_of_git_sync_count(here: GitSite) -> None:
    commit = here.commit_revision(2, branch="other")

    code, said = check(here, "--ref", "other", "--link=elsewhere")

    assert 0 == code, said
    assert f"other is {commit}" in said
    assert f"{here.root}/elsewhere" in said


def test_beside_a_running_wrapper_it_says_what_is_shown_and_who_keeps_it(here: GitSite) -> None:
    wrapper = here.publish()
    before = sorted(os.listdir(here.root))

    code, said = check(here)

    assert 0 == code, said
    assert f"shows {here.repository.head()}" in said
    assert f"a wrapper keeps it: pid {wrapper.pid}" in said
    assert before == sorted(os.listdir(here.root))
    assert wrapper.is_running()


BAD: dict[str, tuple[str, str, Callable[[GitSite], dict[str, str]]]] = {
    "wrong password": (
        "remote",
        "credentials_refused",
        lambda here: here.server.accept(("deploy", "another")) or USER,
    ),
    "no password": (
        "remote",
        "login_missing",
        lambda here: here.server.accept(("deploy", PASSWORD)) or {},
    ),
    "password file missing": (
        "credentials",
        "secret_unreadable",
        lambda here: {
            "GITSYNC_USERNAME": "deploy",
            "GITSYNC_PASSWORD_FILE": str(here.folder / "gone"),
        },
    ),
    "no such ref": ("remote", "ref_not_found", lambda _: {"GITSYNC_REF": "gone"}),
    "no such repository": (
        "remote",
        "repository_not_found",
        lambda here: {"GITSYNC_REPO": here.server.url("gone.git")},
    ),
    "nobody there": (
        "remote",
        "remote_unreachable",
        lambda _: {"GITSYNC_REPO": f"http://127.0.0.1:{closed_port()}/dags.git"},
    ),
    "no git": ("git", "cannot be run", lambda _: {"GITSYNC_GIT": "/nowhere/git"}),
    "not git-sync 4": (
        "git-sync",
        "is not version 4",
        lambda here: {"GIT_SYNC_WRAPPER_GIT_SYNC": _program(here, "echo v3.6.5")},
    ),
    "gate's command cannot be run": (
        "gate",
        "gate_failed",
        lambda here: {
            "GIT_SYNC_WRAPPER_GATE": "command",
            "GIT_SYNC_WRAPPER_GATE_COMMAND": _program(here, "", "/nowhere/sh"),
        },
    ),
}


def _program(here: GitSite, body: str, shell: str = "/bin/sh") -> str:
    path = here.folder / "program"
    path.write_text(f"#!{shell}\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(here: GitSite, name: str) -> None:
    check_name, reason, spoil = BAD[name]

    code, said = check(here, **spoil(here))

    assert 3 == code, said
    found = lines(said)
    assert found[check_name].startswith("FAIL "), said
    assert reason in found[check_name]
    assert not here.root.exists()


def test_a_volume_that_cannot_be_written_is_named(here: GitSite) -> None:
    """
    Not even by root: the kernel refuses everybody there.
    """
    code, said = check(here, GITSYNC_ROOT="/proc/self/dags")

    assert 3 == code, said
    assert "target_" in lines(said)["root"]


def test_a_link_on_another_volume_is_named(here: GitSite) -> None:
    here.root.mkdir()

    code, said = check(here, GITSYNC_LINK="/proc/self/repo")

    assert 3 == code, said
    assert "link_elsewhere" in lines(said)["root"]


def test_what_is_where_the_link_belongs_is_named(here: GitSite) -> None:
    here.publish().terminate()
    damage_link(here.root)

    code, said = check(here)

    assert 0 == code, said
    assert lines(said)["link"].startswith("?? ")


def test_a_gate_that_refuses_everything_can_be_run_all_the_same(here: GitSite) -> None:
    command = _program(here, "echo nothing is good enough; exit 1")

    code, said = check(here, GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND=command)

    assert 0 == code, said
    assert "nothing is good enough" in said


def test_a_check_that_is_stopped_is_not_well_and_leaves_nothing(here: GitSite) -> None:
    judged = here.folder / "judged"
    command = _program(here, f"touch {judged}; exec sleep 600")
    process = here.wrapper(
        "check", GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND=command
    )
    wait_until(judged.exists, "the gate judges", 60)

    assert 143 == process.terminate().code
    assert [] == os.listdir(here.tmp)
    assert [] == here.gits_alive()


def test_settings_that_are_wrong_are_exit_code_2(here: GitSite) -> None:
    process = here.wrapper("check", GITSYNC_DEPTH="deep")

    assert 2 == process.wait_for_exit(60).code
    assert process.find_events("setting_rejected", setting="GITSYNC_DEPTH")


def test_a_pinned_commit_is_not_taken_for_found(here: GitSite) -> None:
    code, said = check(here, GITSYNC_REF=PINNED)

    assert 0 == code, said
    assert f"only a sync can tell whether it has {PINNED}" in said


def test_a_local_repository_needs_nobody_to_log_in(here: GitSite, tmp_path: Path) -> None:
    code, said = check(here, GITSYNC_REPO=here.repository.url)

    assert 0 == code, said
    assert here.repository.head() in lines(said)["remote"]
    assert "ok none: nobody logs in" == lines(said)["credentials"]


def test_a_rehearsal_on_an_empty_volume_makes_nothing(here: GitSite) -> None:
    here.root.mkdir()
    wrapper = here.wrapper(
        GIT_SYNC_WRAPPER_DRY_RUN="true",
        GIT_SYNC_WRAPPER_ONE_SHOT="true",
        GITSYNC_ERROR_FILE="error.json",
    )

    assert 0 == wrapper.wait_for_exit(60).code, wrapper.log()
    wrapper.wait_for_event("plan_made", revision=here.repository.head(), published="")
    assert [] == os.listdir(here.root)
