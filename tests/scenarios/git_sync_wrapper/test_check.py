"""
`git-sync-wrapper check` reports problems before a pod does, and publishes nothing.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.scenarios.git_sync_wrapper.conftest import record
from tests.support.git.git_sync import GitSite
from tests.support.machine.volumes import small_volume
from tests.support.program import own_port
from tests.support.scripts import script
from tests.support.waiting import wait_until


def check(here: GitSite, *arguments: str, code: int = 0, **settings: str | None) -> str:
    process = here.wrapper("check", *arguments, **settings)
    assert code == process.wait_for_exit(120).code, process.log()
    assert "Traceback" not in process.log()
    return process.log()


def since(result: str, reason: str) -> str:
    """The metric of a reason."""
    labels = f'reason="{reason}",result="{result}",sidecar="git-sync-wrapper"'
    return f"sidecar_reason_since_timestamp_seconds{{{labels}}}"


def test_check_accepts_git_sync_s_flags_and_changes_nothing_beside_a_wrapper(
    here: GitSite,
) -> None:
    wrapper = here.publish()
    commit = here.commit_revision(2, branch="other")
    before = sorted(os.listdir(here.root))

    assert f"shows {here.repository.head()}" in check(here)
    said = check(here, "--ref", "other", "--link=elsewhere")

    assert f"other is {commit}" in said
    assert f"{here.root}/elsewhere" in said
    assert [".git-sync", ".snapshots", here.link.name] == before
    assert before == sorted(os.listdir(here.root))
    assert wrapper.is_running()


def test_check_and_readyz_report_a_failed_hook_until_it_succeeds(here: GitSite) -> None:
    """The wrapper is ready because the files are good."""
    good = here.folder / "good"
    body = f"""\
test -e {good} && exit
echo first >&2
echo "https://me:hush-url@there refuses $HOOK_TOKEN, $(seq 400 | xargs)"
exit 3"""
    settings = {
        "HOOK_TOKEN": "hush-variable",
        "GITSYNC_EXECHOOK_COMMAND": script(here.folder / "hook", body),
        "GITSYNC_EXECHOOK_BACKOFF": "1s",
        "GIT_SYNC_WRAPPER_HTTP_BIND": f"127.0.0.1:{own_port()}",
        "GIT_SYNC_WRAPPER_STATUS_PAGE": "false",
    }
    wrapper = here.publish(**settings)
    wrapper.wait_for(lambda: wrapper.reason() == "hook_failed", "it is told")
    said = (
        f"exechook failed for {here.repository.head()}: it ended with exit code 3: "
        "https://***@there refuses ***, 1 2 3 4 "
    )

    told = wrapper.wait_until_ready().json()
    assert "partial" == told["result"]
    assert told["error"].startswith(said)
    assert " 400" not in told["error"]
    assert "hush" not in wrapper.log()
    assert told["advice"].startswith("Check the hook's output in the log")
    assert f"hook_failed: {said}" in check(here, code=3, **settings)
    assert wrapper.metrics()[since("partial", "hook_failed")]
    good.touch()
    wrapper.wait_for(lambda: wrapper.reason() is None, "it succeeds")
    wrapper.wait_for_event("reason_ended", reason="hook_failed")
    check(here, code=0, **settings)


def test_check_fails_where_no_commit_has_room(here: GitSite) -> None:
    with small_volume(here.root, "512k"):
        said = check(here, code=3)

    assert "FAIL  root           target_full" in said
    assert "shows nothing" not in said, "it looked no further"


@pytest.mark.parametrize("name", ["GITSYNC_REPO", "GITSYNC_REF"])
def test_check_readyz_and_a_metric_report_a_standby_beside_another_source(
    here: GitSite, name: str
) -> None:
    """It is ready, so that a rolling update can end the holder of the lock."""
    holder = here.publish()
    here.server.repository("other.git").commit({"a.py": "a = 1\n"})
    here.commit_revision(2, branch="other")
    asked = {"GITSYNC_REPO": here.server.url("other.git"), "GITSYNC_REF": "other"}
    settings = {
        name: asked[name],
        "GIT_SYNC_WRAPPER_HTTP_BIND": f"127.0.0.1:{own_port()}",
    }
    standby = here.wrapper(**settings)
    began = standby.wait_for_event("wait_began", reason="published_elsewhere")

    assert f"pid {holder.pid} on" in began["error"], began
    assert f"but {name} is " in began["error"], began
    assert "published_elsewhere" in check(here, code=3, **settings)
    told = standby.wait_until_ready().json()
    assert (told["result"], told["reason"]) == ("waiting", "published_elsewhere")
    assert standby.metrics()[since("waiting", "published_elsewhere")]
    assert not standby.metrics()[
        'sidecar_last_success_timestamp_seconds{sidecar="git-sync-wrapper"}'
    ], "AirflowSidecarStale is for it"
    one_shot = here.wrapper(
        "--one-time", GITSYNC_DEPTH="1", GIT_SYNC_WRAPPER_ONE_SHOT_DEADLINE="2s"
    )
    assert 3 == one_shot.wait_for_exit().code


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("credentials_refused", ("GITSYNC_PASSWORD", "that the token has not expired")),
        ("revision_refused", ("a.py",)),
    ],
)
def test_log_page_and_check_explain_a_failure_of_the_daemon(
    here: GitSite, reason: str, words: tuple[str, ...]
) -> None:
    """`check` fails while the daemon fails, even if its own tests succeed."""
    here.repository.commit({"a.py": "a = 1\n"}, whole=True)
    here.server.accept(("deploy", "canary-4711"))
    settings = {
        "GITSYNC_USERNAME": "deploy",
        "GITSYNC_PASSWORD": "canary-4711",
        "GIT_SYNC_WRAPPER_GATE": "syntax",
        "GIT_SYNC_WRAPPER_HTTP_BIND": f"127.0.0.1:{own_port()}",
    }
    wrapper = here.publish(**settings)
    if reason == "credentials_refused":
        here.server.accept(("deploy", "the next one"))
    here.repository.commit({"a.py": "def broken(:\n"})
    wait_until(lambda: wrapper.status()["reason"] == reason, reason)

    told = {
        "page": wrapper.get("/").body.replace("<wbr>", ""),
        "check": check(here, code=3, **settings),
        "log": wrapper.log(),
    }
    for place, text in told.items():
        assert [] == [word for word in (reason, *words) if word not in text], place
        assert "canary-4711" not in text


def test_page_log_and_record_report_author_time_subject_and_changes(
    here: GitSite,
) -> None:
    """Also after a restart and beside a lock holder, without git and remote."""
    began = time.time()
    here.repository.commit({"old.py": "1", "a.py": "1"}, whole=True)
    wrapper = here.publish()
    commit = here.repository.commit(
        {"a.py": "2", "new.py": "1", "old.py": None},
        author="김민지",
        message="보고서 추가",
    )
    told = {"author": "김민지", "subject": "보고서 추가", "changed": ["a.py", "new.py"]}
    said = wrapper.wait_for_event("commit_published", revision=commit)
    assert {"files_changed": 2, **told}.items() <= said.items()
    found = record(here)
    assert found.pop("committed_at").startswith("2023-11-14T22:13:")
    assert began <= found.pop("published_at") <= time.time()
    assert found.pop("made_by")
    assert found == {
        "revision": commit,
        "snapshot": commit,
        "repo": here.server.url(),
        "ref": "main",
        "fallback": "",
        **told,
    }
    here.server.stop()
    wrapper.kill()
    for process in (wrapper.start(), here.wrapper()):
        process.wait_until_ready()
        details = process.status()["details"]
        assert "a.py, new.py" == details["last_change"]
        assert "김민지" == details["commit"]["author"]
