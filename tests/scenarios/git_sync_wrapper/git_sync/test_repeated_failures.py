"""
What git-sync's own repository remembers stops nothing: a run starts over from an empty
one.
"""

from pathlib import Path
from typing import Any

import pytest

from git_sync_wrapper import work_folder
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer


def test_a_failure_that_stays_starts_over_only_once(here: GitSite) -> None:
    """Also if it is another one in between."""
    wrapper = here.publish()
    before = here.shown()
    here.repository.commit_submodule("lib", here.server.url("missing.git"), "1" * 40)

    def fail(times: int, reason: str) -> dict[str, Any]:
        for _ in range(times):
            failed = wrapper.wait_for_event(
                "cycle_failed", 60, after=len(wrapper.events), reason=reason
            )
        return failed

    fail(3, "repository_not_found")
    here.server.inject(
        answer_with(Answer(500)), match=lambda request: "missing" in request.path
    )
    fail(1, "server_error")
    here.server.heal()
    failed = fail(3, "repository_not_found")

    assert "missing.git" in failed["error"]
    assert failed["advice"].startswith("This is about the submodule"), failed
    assert 1 == len(wrapper.find_events("repository_removed"))
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)


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
