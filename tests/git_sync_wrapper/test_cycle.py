"""
One cycle: what is asked, run, shown and announced.
"""

import os
from pathlib import Path

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from tests.git_sync_wrapper.cycling import DOWN, ONE, TWO, Start
from tests.runtime.recording import Log
from tests.support.askpass import AskpassServer


def test_shows_the_first_commit_and_then_only_asks_but_for_a_person(start: Start) -> None:
    wrapper = start()
    wrapper.commit(ONE)

    assert [Outcome("changed", ONE), Outcome("unchanged", ONE), Outcome("unchanged", ONE)] == [
        wrapper.cycle() for _ in range(3)
    ]
    assert (ONE, 1, 3) == (wrapper.shown(), wrapper.runs(), wrapper.remote.polls)
    assert 1 == wrapper.count("git_sync_count_total", status="success")
    assert 2 == wrapper.count("git_sync_count_total", status="noop")
    assert 1 == wrapper.count("git_fetch_count_total")
    assert Outcome("unchanged", ONE) == wrapper.cycle(is_asked_for=True)
    assert 2 == wrapper.runs()


def test_an_askpass_service_is_asked_once_for_the_poll_and_the_sync(start: Start) -> None:
    """One whose every other answer is wrong could give the wrong one to each sync."""
    with AskpassServer("deploy", "secret") as service:
        wrapper = start(GITSYNC_ASKPASS_URL=service.endpoint)
        for name in (ONE, TWO):
            wrapper.follow(name)
            asked = [wrapper.access.who(Fence()) for _ in ("poll", "sync")]

            assert ["user deploy, from GITSYNC_ASKPASS_URL"] * 2 == asked
        assert 2 == len(service.requests)


def test_follows_the_remote_forwards_and_back(start: Start) -> None:
    wrapper = start()
    shown = []
    for name in (ONE, TWO, ONE):
        wrapper.follow(name, f"name = {name!r}\n")
        shown.append((wrapper.shown(), (wrapper.root / "repo/dag.py").read_text()))

    assert [(name, f"name = {name!r}\n") for name in (ONE, TWO, ONE)] == shown


def test_a_restart_runs_git_sync_only_for_something_new(start: Start) -> None:
    first = start.published()
    first.stop()

    second = start()

    assert Outcome("unchanged", ONE) == second.cycle()
    assert 1 == second.runs()
    assert Outcome("changed", TWO) == second.follow(TWO)


def test_a_fetch_that_is_behind_the_poll_is_made_again(start: Start) -> None:
    """A server of several replicas: one answers the poll, another git-sync's fetch."""
    wrapper = start.published()
    wrapper.remote.newer = TWO

    assert Outcome("unchanged", ONE) == wrapper.cycle()
    assert not wrapper.session.glance()
    assert Outcome("changed", TWO) == wrapper.follow(TWO)
    assert wrapper.session.glance()


def test_a_removed_link_is_turned_back_without_git_sync(start: Start, log: Log) -> None:
    wrapper = start.published()
    (wrapper.root / "repo").unlink()
    assert not wrapper.context.status.readiness.ready

    wrapper.cycle()

    assert (ONE, 1) == (wrapper.shown(), wrapper.runs())
    assert [ONE] == [event["revision"] for event in log.events("link_restored")]


def test_a_wiped_volume_is_filled_again(start: Start) -> None:
    wrapper = start.published()
    for path in (".snapshots", ".git-sync", "repo"):
        (wrapper.root / path).rename(wrapper.folder / f"gone{path}")

    assert Outcome("changed", ONE) == wrapper.cycle()
    assert ONE == wrapper.shown()


def test_other_settings_check_out_the_same_commit_again(start: Start) -> None:
    first = start()
    first.follow(ONE, "old = 1\n")
    first.stop()

    second = start(GITSYNC_SUBMODULES="off")
    second.commit(ONE, "new = 1\n")

    assert Outcome("changed", ONE) == second.cycle()
    assert (ONE, "new = 1\n") == (second.shown(), (second.root / "repo/dag.py").read_text())
    assert Outcome("unchanged", ONE) == second.cycle()


def test_a_full_commit_is_never_asked_for(start: Start) -> None:
    wrapper = start(GITSYNC_REF=ONE)
    wrapper.commit(ONE)

    assert ["changed", "unchanged"] == [wrapper.cycle().result for _ in range(2)]
    assert wrapper.session.glance()
    assert 0 == wrapper.remote.polls


def test_a_rehearsal_changes_nothing_turns_no_link_and_tells_no_hook(
    start: Start, tmp_path: Path, log: Log
) -> None:
    touched = tmp_path / "touched"
    settings = {"GIT_SYNC_WRAPPER_DRY_RUN": "true", "GITSYNC_TOUCH_FILE": str(touched)}
    empty = start(**settings)
    empty.follow(ONE)
    assert (0, ONE) == (empty.runs(), log.events("plan_made")[0]["revision"])
    assert not os.path.lexists(empty.root / "repo")
    empty.stop()
    first = start.published()
    first.stop()

    assert Outcome("unchanged", ONE) == start(**settings).cycle()
    assert not touched.exists()
    (first.root / "repo").unlink()
    wrapper = start(**settings)
    wrapper.cycle()
    assert not os.path.lexists(wrapper.root / "repo")


def test_a_glance_sees_what_a_cycle_would_find_to_do(start: Start) -> None:
    wrapper = start()
    wrapper.commit(ONE)
    assert not wrapper.session.glance()
    wrapper.cycle()

    assert wrapper.session.glance()
    assert 1 == wrapper.count("git_sync_count_total", status="noop")
    wrapper.remote.error = DOWN
    assert not wrapper.session.glance()
    wrapper.remote.error = None
    (wrapper.root / "repo").rename(wrapper.root / "other")
    assert not wrapper.session.glance()
    (wrapper.root / "other").rename(wrapper.root / "repo")
    assert wrapper.session.glance()
    (wrapper.root / ".snapshots").rename(wrapper.root / "gone")
    assert not wrapper.session.glance()
    (wrapper.root / "gone").rename(wrapper.root / ".snapshots")
    wrapper.commit(TWO)
    assert not wrapper.session.glance()
