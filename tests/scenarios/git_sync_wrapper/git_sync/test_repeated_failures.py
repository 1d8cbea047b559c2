"""
What git-sync's own repository remembers stops nothing: a run starts over from an empty
one.
"""

from pathlib import Path

import pytest

from git_sync_wrapper import work_folder
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer

ERRORS = 'git_sync_wrapper_runs_total{result="error",sidecar="git-sync-wrapper"}'


def test_a_failure_that_stays_starts_over_only_once(here: GitSite) -> None:
    """Also if it is another one in between; after a success it is a new one."""
    wrapper = here.publish()
    before = here.shown()
    missing = here.server.url("missing.git")
    here.repository.commit_submodule("lib", missing, "1" * 40)

    # A signal ends the wait after a failure, which may be a minute.
    for _ in range(3):
        wrapper.sync()
    here.server.inject(
        answer_with(Answer(500)), match=lambda request: "missing" in request.path
    )
    assert "server_error" == wrapper.sync()["reason"]
    here.server.heal()
    for _ in range(3):
        failed = wrapper.sync()

    assert "missing.git" in failed["error"]
    assert failed["advice"].startswith("This is about the submodule"), failed
    assert 1 == len(wrapper.find_events("repository_removed"))
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)

    here.commit_revision(2)
    wrapper.sync()
    # One of the failed cycles has run git-sync twice.
    assert 1 + len(wrapper.find_events("cycle_failed")) == wrapper.metrics()[ERRORS]
    seen = len(wrapper.events)
    here.repository.commit_submodule("lib", missing, "2" * 40)
    first = wrapper.wait_for_event("cycle_failed", after=seen)
    removed = wrapper.wait_for_event("repository_removed", after=seen)
    assert first["timestamp"] < removed["timestamp"], "it failed once before"


def test_what_a_kill_leaves_of_a_removed_repository_is_where_a_start_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git-sync/.git").mkdir(parents=True)
    (tmp_path / ".snapshots").mkdir()
    monkeypatch.setattr(work_folder, "remove_tree", lambda *_: None)

    work_folder.WorkFolder(str(tmp_path)).remove()

    assert [tmp_path / ".snapshots"] == [*tmp_path.iterdir()]


def test_a_hash_keeps_its_repository_while_the_remote_is_down(here: GitSite) -> None:
    here.publish(GITSYNC_REF=here.repository.head()).kill()
    second = here.commit_revision(2)
    here.server.stop()
    wrapper = here.wrapper(GITSYNC_REF=second)
    for _ in range(3):
        wrapper.wait_for_event("cycle_failed", 60, after=len(wrapper.events))

    assert [] == wrapper.find_events("repository_removed")
    here.server.start()
    here.wait_until_shown(second, wrapper, 60)
    assert "cycle_finished" == wrapper.sync()["event"], (
        "without polls, SIGHUP still counts"
    )
