"""
A gate or hook that refuses a commit, or reaches no verdict.
"""

import json
import shutil
import threading
from pathlib import Path

import pytest

from git_sync_wrapper.engine.engine import Engine
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.gate.checks import command_check
from sidecar_runtime.gate.gate import LONGEST_REST_SECONDS
from sidecar_runtime.health import Outcome
from tests.git_sync_wrapper.cycling import DOWN, ONE, THREE, TWO, Start
from tests.runtime.recording import Log
from tests.support.machine.clocks import Clock
from tests.support.raising import raised
from tests.support.scripts import script
from tests.support.waiting import wait_until


@pytest.mark.parametrize("one_time", ["false", "true"])
@pytest.mark.parametrize("is_first", [False, True])
def test_a_refused_commit_is_neither_published_nor_synced_again(
    start: Start, log: Log, monkeypatch: pytest.MonkeyPatch, is_first: bool, one_time: str
) -> None:
    # The script's repository has no commits, so git could not tell the parent.
    monkeypatch.setattr(Engine, "parent", lambda *_: "")
    wrapper = start(GIT_SYNC_WRAPPER_GATE="syntax", GITSYNC_ONE_TIME=one_time)
    if not is_first:
        wrapper.follow(ONE)
    wrapper.commit(TWO, "def\n")

    results = [wrapper.cycle().result for _ in range(3)]

    assert (["refused"] * 3, 1 if is_first else 2) == (results, wrapper.runs())
    assert (not is_first) == wrapper.context.status.readiness.ready
    assert is_first or ONE == wrapper.shown()
    assert 1 == len(log.events("revision_refused"))
    assert "refused" in wrapper.context.status.details()
    if not is_first:  # returning to the published commit ends the refusal
        wrapper.commit(ONE)
        assert ["unchanged"] * 2 == [wrapper.cycle().result for _ in range(2)]
    assert Outcome("changed", THREE) == wrapper.follow(THREE)
    assert "refused" not in wrapper.context.status.details()


def test_publishing_a_fallback_counts_as_a_change(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = start(GIT_SYNC_WRAPPER_GATE="syntax")
    monkeypatch.setattr(Engine, "parent", lambda *_: ONE)
    fetch = Engine.run

    def run(engine: Engine, fence: Fence, **instead: str) -> str:
        if ref := instead.get("ref"):
            wrapper.commit(ref)
        found = fetch(engine, fence, **instead)
        wrapper.commit(TWO, "def\n")
        return found

    monkeypatch.setattr(Engine, "run", run)
    wrapper.commit(TWO, "def\n")

    first, again = wrapper.cycle(), wrapper.cycle()

    assert ("refused", {"commits_published": 1}) == (first.result, first.counts)
    assert ("refused", {}) == (again.result, again.counts)
    assert ONE == wrapper.shown()


def test_recreates_a_checkout_removed_before_the_gate_read_it(start: Start, tmp_path: Path) -> None:
    """Any process that can write to the volume may remove git-sync's folders."""
    worktree, once = tmp_path / f"root/.git-sync/.worktrees/{TWO}", tmp_path / "once"
    goes = f"[ -e {once} ] || rm -r {worktree} && touch {once}; exit 1"
    git = script(tmp_path / "git", f'case "$*" in *diff-tree*) {goes};; esac; exec git "$@"')
    wrapper = start.published(GIT_SYNC_WRAPPER_GATE="syntax", GITSYNC_GIT=git)
    wrapper.commit(TWO)

    assert "target_failed" == wrapper.failure().reason
    assert ONE == wrapper.shown()
    assert Outcome("changed", TWO) == wrapper.cycle()


def test_a_refusal_ends_with_its_commit_after_an_abandoned_cycle(start: Start, log: Log) -> None:
    """After that cycle, the commit that git-sync found last is no longer known."""
    wrapper = start.published(GIT_SYNC_WRAPPER_GATE="syntax")
    wrapper.commit(TWO, "def\n")
    assert "refused" == wrapper.cycle().result
    wrapper.remote.error = CycleAbandoned()
    with pytest.raises(CycleAbandoned):
        wrapper.cycle()
    wrapper.remote.error = None
    wrapper.commit(ONE)

    assert Outcome("unchanged", ONE) == wrapper.cycle()
    assert "refused" not in wrapper.context.status.details()
    assert 0 == wrapper.count("sidecar_gate_refused", sidecar="git-sync-wrapper")


def test_a_fallback_that_became_the_newest_commit_is_no_longer_a_fallback(start: Start) -> None:
    first = start.published()
    first.stop()
    record = first.root / ".snapshots/published.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fallback": TWO}))

    second = start()

    assert Outcome("unchanged", ONE) == second.cycle()
    assert "" == second.context.status.readiness.shortfall
    assert (2, Outcome("unchanged", ONE), 2) == (second.runs(), second.cycle(), second.runs())


def test_changed_settings_make_the_gate_judge_all_files(start: Start, tmp_path: Path) -> None:
    """Another sparse-checkout file, for example, checks out other files."""
    settings = {"GIT_SYNC_WRAPPER_GATE": "syntax"}
    settings["GITSYNC_GIT"] = script(tmp_path / "git", "exit 0")  # reports that no file differs
    first = start.published(**settings)
    first.stop()
    shutil.rmtree(first.root / ".git-sync")

    second = start(GITSYNC_SUBMODULES="off", **settings)
    second.commit(ONE, "def\n")

    assert ("refused", "a = 1\n") == (
        second.cycle().result,
        (second.root / "repo/dag.py").read_text(),
    )


def test_a_killed_gate_command_delays_a_commit_by_one_cycle(start: Start, tmp_path: Path) -> None:
    check = script(tmp_path / "check", f"test -e {tmp_path}/twice && exit 0\nkill -KILL $$")
    (tmp_path / "twice").touch()
    wrapper = start.published(GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND=check)
    (tmp_path / "twice").unlink()
    wrapper.commit(TWO)

    assert ("gate_undecided", ONE) == (wrapper.failure().reason, wrapper.shown())
    (tmp_path / "twice").touch()
    assert Outcome("changed", TWO) == wrapper.cycle()


@pytest.mark.parametrize("again", ["a person asks", "after a while"])
def test_judges_a_refused_commit_again_when_triggered_or_later(start: Start, again: str) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND="true")
    gate = wrapper.context.gate
    assert gate is not None
    gate._clock = clock = Clock()
    gate._check = command_check(("false",))
    wrapper.commit(TWO)
    assert ["refused"] * 2 == [wrapper.cycle().result for _ in range(2)]
    gate._check = command_check(("true",))
    if again == "after a while":
        clock.seconds += LONGEST_REST_SECONDS

    assert Outcome("changed", TWO) == wrapper.cycle(is_asked_for=again == "a person asks")
    assert wrapper.context.status.readiness.ready


def test_a_trigger_during_an_outage_is_served_once_git_sync_works_again(start: Start) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND="true")
    gate = wrapper.context.gate
    assert gate is not None
    gate._check = command_check(("false",))
    wrapper.commit(TWO)
    assert "refused" == wrapper.cycle().result
    gate._check = command_check(("true",))
    source, away = wrapper.folder / "source", wrapper.folder / "away"
    wrapper.remote.error = DOWN
    source.rename(away)
    raised(SidecarError, wrapper.session.cycle, Fence(is_asked_for=True))
    wrapper.remote.error = None
    away.rename(source)

    assert Outcome("changed", TWO) == wrapper.cycle()


def test_never_publishes_a_commit_that_the_pre_publish_hook_refuses(start: Start, log: Log) -> None:
    wrapper = start(GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND="/bin/false", GITSYNC_MAX_FAILURES="-1")
    wrapper.commit(ONE)

    reasons = [wrapper.failure().reason for _ in range(2)]

    assert ["pre_publish_hook_failed"] * 2 == reasons
    assert not (wrapper.root / "repo").exists()


@pytest.mark.parametrize("again", ["the hook refuses", "the commit is reverted"])
def test_removes_a_commit_whose_cycle_was_abandoned_in_the_pre_publish_hook(
    start: Start, tmp_path: Path, again: str
) -> None:
    began = tmp_path / "began"
    hook = script(
        tmp_path / "hook", f"[ ! -e {tmp_path}/refuses ] || {{ touch {began}; sleep 1; false; }}"
    )
    wrapper = start.published(
        GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND=hook, GITSYNC_STALE_WORKTREE_TIMEOUT="1h"
    )
    (tmp_path / "refuses").touch()
    wrapper.commit(TWO)
    fence = Fence()
    revoking = threading.Thread(
        target=lambda: (wait_until(began.exists, "it runs"), fence.revoke())
    )
    revoking.start()
    with pytest.raises(CycleAbandoned):
        wrapper.session.cycle(fence)
    revoking.join()
    assert {ONE, TWO} == wrapper.kept(), "another thread may be publishing it now"

    if again == "the hook refuses":
        assert "pre_publish_hook_failed" == wrapper.failure().reason
    else:
        assert Outcome("unchanged", ONE) == wrapper.follow(ONE)

    assert {ONE} == wrapper.kept()


def test_keeps_an_older_published_commit_that_the_pre_publish_hook_refuses(
    start: Start, tmp_path: Path
) -> None:
    hook = script(tmp_path / "hook", f"[ ! -e {tmp_path}/refuses ]")
    wrapper = start.published(
        GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND=hook, GITSYNC_STALE_WORKTREE_TIMEOUT="1h"
    )
    wrapper.follow(TWO)
    (tmp_path / "refuses").touch()
    wrapper.commit(ONE)

    assert "pre_publish_hook_failed" == wrapper.failure().reason
    assert ({ONE, TWO}, TWO) == (wrapper.kept(), wrapper.shown())
