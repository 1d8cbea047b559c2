"""
One cycle: poll, sync, publish, announce.
"""

import pytest

from sidecar_runtime.fence import Fence
from sidecar_runtime.health import Outcome
from tests.git_sync_wrapper.cycling import ONE, TWO, Start
from tests.runtime.recording import Log
from tests.support.git.askpass import AskpassServer


def test_publishes_the_first_commit_then_only_polls_unless_triggered(start: Start) -> None:
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


def test_asks_an_askpass_service_once_per_cycle_for_poll_and_sync(start: Start) -> None:
    """If every second answer were wrong, each sync could receive a wrong one."""
    with AskpassServer("deploy", "secret") as service:
        wrapper, polled = start(GITSYNC_ASKPASS_URL=service.endpoint), list[str]()
        wrapper.remote.on_poll = lambda: polled.append(wrapper.access.who(Fence()))
        program, synced = wrapper.folder / "git-sync", wrapper.folder / "synced"
        login = f'echo "url=$GITSYNC_REPO" | git credential fill | grep username >> {synced}\n'
        program.write_text(program.read_text() + login)
        for name in (ONE, TWO):
            wrapper.follow(name)

        assert ["user deploy, from GITSYNC_ASKPASS_URL"] * 2 == polled
        assert "username=deploy\n" * 2 == synced.read_text()
        assert 2 == len(service.requests)


def test_follows_the_remote_to_newer_and_older_commits(start: Start) -> None:
    wrapper = start()
    shown = []
    for name in (ONE, TWO, ONE):
        wrapper.follow(name, f"name = {name!r}\n")
        shown.append((wrapper.shown(), (wrapper.root / "repo/dag.py").read_text()))

    assert [(name, f"name = {name!r}\n") for name in (ONE, TWO, ONE)] == shown


def test_after_a_restart_git_sync_runs_only_for_a_new_commit(start: Start) -> None:
    first = start.published()
    first.stop()

    second = start()

    assert Outcome("unchanged", ONE) == second.cycle()
    assert 1 == second.runs()
    assert Outcome("changed", TWO) == second.follow(TWO)


def test_fetches_again_if_a_fetch_was_behind_the_poll(start: Start) -> None:
    """One replica of a server may answer the poll, and another git-sync's fetch."""
    wrapper = start.published()
    wrapper.remote.newer = TWO

    assert Outcome("unchanged", ONE) == wrapper.cycle()
    assert Outcome("changed", TWO) == wrapper.follow(TWO)


def test_restores_a_removed_link_without_running_git_sync(start: Start, log: Log) -> None:
    wrapper = start.published()
    (wrapper.root / "repo").unlink()
    assert not wrapper.context.status.readiness.ready

    wrapper.cycle()

    assert (ONE, 1) == (wrapper.shown(), wrapper.runs())
    assert [ONE] == [event["revision"] for event in log.events("link_restored")]


def test_publishes_again_after_the_volume_was_wiped(start: Start) -> None:
    wrapper = start.published()
    for path in (".snapshots", ".git-sync", "repo"):
        (wrapper.root / path).rename(wrapper.folder / f"gone{path}")

    assert Outcome("changed", ONE) == wrapper.cycle()
    assert ONE == wrapper.shown()


def test_changed_settings_check_out_the_same_commit_again(start: Start) -> None:
    first = start()
    first.follow(ONE, "old = 1\n")
    first.stop()

    second = start(GITSYNC_SUBMODULES="off")
    second.commit(ONE, "new = 1\n")

    assert Outcome("changed", ONE) == second.cycle()
    assert (ONE, "new = 1\n") == (second.shown(), (second.root / "repo/dag.py").read_text())
    assert Outcome("unchanged", ONE) == second.cycle()


@pytest.mark.parametrize("ref", [ONE, TWO], ids=["commit", "annotated tag"])
def test_never_polls_if_the_ref_is_a_full_hash(start: Start, ref: str) -> None:
    wrapper = start(GITSYNC_REF=ref)
    wrapper.commit(ONE)

    assert ["changed", "unchanged"] == [wrapper.cycle().result for _ in range(2)]
    assert 0 == wrapper.remote.polls


def test_git_trace_and_warnings_damage_no_checkout(start: Start) -> None:
    assert "changed" == start(GIT_TRACE="1").follow(ONE).result
