"""
How failures affect the published commit, the process, and a one-shot.
"""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from git_sync_wrapper.context import GitSyncExitError
from git_sync_wrapper.engine.engine import Engine
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sidecar_runtime.volume.lock import TargetLock
from tests.git_sync_wrapper.cycling import DOWN, ONE, TWO, Start
from tests.runtime.recording import Log
from tests.support.raising import raised


def test_runs_git_sync_after_a_failed_poll(start: Start) -> None:
    wrapper = start.published()
    wrapper.remote.error = DOWN
    wrapper.commit(TWO)

    assert Outcome("changed", TWO) == wrapper.cycle()
    assert 1 == wrapper.count(
        "git_sync_wrapper_polls_total", sidecar="git-sync-wrapper", result="error"
    )


def test_failures_keep_the_published_commit_and_the_process_running(start: Start) -> None:
    wrapper = start.published(GITSYNC_MAX_FAILURES="0", GITSYNC_ERROR_FILE="error")
    wrapper.lose_remote()

    errors = [wrapper.failure() for _ in range(3)]
    assert not any(isinstance(error, GitSyncExitError) for error in errors)
    assert ["name_unresolved"] * 3 == [error.reason for error in errors]
    assert [None] * 3 == [error.retry_within_seconds for error in errors]
    assert (ONE, True) == (wrapper.shown(), wrapper.context.status.readiness.ready)
    assert 3 == json.loads((wrapper.root / "error").read_text())["Args"]["failCount"]
    wrapper.remote.error = None
    wrapper.follow(TWO)
    assert not (wrapper.root / "error").exists()


@pytest.mark.parametrize(
    ("variables", "failures"),
    [
        ({}, 1),
        ({"GITSYNC_MAX_FAILURES": "3"}, 3),
        ({"GITSYNC_INIT_MAX_FAILURES": "2"}, 2),
        ({"GITSYNC_ONE_TIME": "true", "GITSYNC_MAX_FAILURES": "2"}, 2),
    ],
)
def test_exits_at_git_syncs_failure_limit_before_the_first_publication(
    start: Start, variables: dict[str, str], failures: int
) -> None:
    wrapper = start(GITSYNC_INIT_PERIOD="3s", **variables)
    wrapper.remote.error = DOWN

    errors = [wrapper.failure() for _ in range(failures)]

    assert [3.0] * (failures - 1) == [error.retry_within_seconds for error in errors[:-1]]
    assert [False] * (failures - 1) + [True] == [
        isinstance(error, GitSyncExitError) for error in errors
    ]
    assert (1, "name_unresolved") == (errors[-1].exit_code, errors[-1].reason)


def test_a_one_shot_fails_although_an_older_commit_is_published(start: Start) -> None:
    first = start.published()
    first.stop()
    (first.folder / "source").unlink()

    second = start(GITSYNC_ONE_TIME="true")
    second.remote.error = DOWN

    assert isinstance(second.failure(), GitSyncExitError)


def test_a_one_shot_on_an_empty_volume_polls_only_to_explain_a_failure(start: Start) -> None:
    wrapper = start(GITSYNC_ONE_TIME="true", GITSYNC_MAX_FAILURES="-1")
    wrapper.remote.error = DOWN
    program = wrapper.folder / "git-sync"
    working = program.read_text()
    program.write_text("#!/bin/sh\nexit 1\n")
    assert ("remote_unreachable", 1) == (wrapper.failure().reason, wrapper.remote.polls)
    program.write_text(working)
    wrapper.commit(ONE)

    assert "changed" == wrapper.cycle().result
    assert (1, ONE) == (wrapper.remote.polls, wrapper.shown())
    assert "unchanged" == wrapper.cycle().result
    assert 2 == wrapper.remote.polls, "now a published commit can be compared"


def test_an_abandoned_cycle_does_not_count_as_a_failure(start: Start, revoked: Fence) -> None:
    wrapper = start(GITSYNC_ERROR_FILE="error")
    wrapper.commit(ONE)

    with pytest.raises(CycleAbandoned):
        wrapper.session.cycle(revoked)

    assert 0 == wrapper.context.past.failures
    assert not (wrapper.root / "error").exists()


def test_a_one_shot_fails_if_its_hook_fails(start: Start, tmp_path: Path, log: Log) -> None:
    wrapper = start(GITSYNC_ONE_TIME="true", GITSYNC_EXECHOOK_COMMAND="/bin/false")
    wrapper.commit(ONE)

    error = wrapper.failure()

    assert (1, "hook_failed", ONE) == (error.exit_code, error.reason, wrapper.shown())


def test_git_sync_repairs_damage_that_git_cannot(start: Start, log: Log) -> None:
    """The script's repository has no commits. Whole files need no further run."""
    wrapper = start.published()
    (wrapper.root / "repo/dag.py").write_text("damaged")
    wrapper.remote.error = DOWN
    source = wrapper.folder / "source"
    source.rename(wrapper.folder / "away")
    asked = Fence(is_asked_for=True)
    assert "name_unresolved" == raised(SidecarError, wrapper.session.cycle, asked).reason
    assert not wrapper.context.status.readiness.ready

    (wrapper.folder / "away").rename(source)
    wrapper.remote.error = None
    runs = wrapper.runs()
    assert ["unchanged"] * 2 == [wrapper.cycle().result for _ in range(2)]
    assert "a = 1\n" == (wrapper.root / "repo/dag.py").read_text()
    assert (True, runs + 1) == (wrapper.context.status.readiness.ready, wrapper.runs())
    assert 1 == len(log.events("damage_repaired"))


def test_publishes_the_next_commit_although_damage_cannot_be_repaired(
    start: Start, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = start.published()
    (wrapper.root / "repo/dag.py").write_text("damaged")
    monkeypatch.setattr(Engine, "restore", lambda *_: str(wrapper.folder / "removed"))
    wrapper.commit(TWO)

    outcome = wrapper.cycle()

    assert ("changed", TWO) == (outcome.result, wrapper.shown())
    assert wrapper.context.status.readiness.ready
    assert [ONE] == [event["revision"] for event in log.events("restore_failed")]


@pytest.mark.parametrize(("seconds", "found"), [(290, 0), (300, 1)])
def test_inspects_as_often_while_failures_are_a_backoff_apart(
    start: Start, log: Log, monkeypatch: pytest.MonkeyPatch, seconds: int, found: int
) -> None:
    """Thirty polls, one each ten seconds."""
    wrapper = start.published()
    wrapper.cycle()
    (wrapper.root / "repo/dag.py").write_text("damaged")
    wrapper.lose_remote()
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + seconds)

    wrapper.failure()

    assert found == len(log.events("damage_found"))


class NoLocks(TargetLock):
    """A lock on a file system that does not support locks."""

    def try_acquire(self, name: str, dir_fd: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_reports_a_volume_that_does_not_support_locks(start: Start) -> None:
    wrapper = start()
    wrapper.context.past.lock = NoLocks()
    wrapper.commit(ONE)

    error = wrapper.failure()

    assert "target_failed" == error.reason
    assert f"cannot lock {wrapper.root}: No locks available" == error.message


def test_a_volume_failure_does_not_exit_while_a_commit_is_published(start: Start) -> None:
    first = start.published()
    first.stop()
    second = start()
    second.context.past.lock = NoLocks()

    error = second.failure()

    assert ("target_failed", False) == (error.reason, isinstance(error, GitSyncExitError))


def test_recreates_an_incomplete_checkout_before_publishing(start: Start, tmp_path: Path) -> None:
    """Another process may remove files while git writes them, or while they are copied."""
    wrapper, once = start.published(), tmp_path / "once"
    loses = f'[ -e {once} ] || {{ touch {once}; cd "$tree"; git add --all; rm dag.py; }}\n'
    program = tmp_path / "git-sync"
    program.write_text(program.read_text() + loses)
    wrapper.commit(TWO)

    failure = wrapper.failure()

    assert ("target_failed", True) == (failure.reason, "dag.py" in failure.message)
    assert (ONE, {ONE}) == (wrapper.shown(), wrapper.kept())
    assert Outcome("changed", TWO) == wrapper.cycle()


@pytest.mark.parametrize(
    ("said", "polled", "reason"),
    [
        ("Authentication failed", "redirect_refused", "redirect_refused"),
        ("could not read Username", "redirect_refused", "redirect_refused"),
        ("Authentication failed", "remote_timeout", "credentials_refused"),
        ("a new sentence of git", "remote_timeout", "remote_timeout"),
    ],
)
def test_a_poll_explains_what_git_cannot_say(
    start: Start, said: str, polled: str, reason: str
) -> None:
    """The login that another server asks for is not wrong."""
    wrapper = start.published(GITSYNC_USERNAME="me", GITSYNC_PASSWORD="secret")
    wrapper.lose_remote(said)
    wrapper.remote.error = SidecarError(polled, "why", "look")

    assert reason == wrapper.failure().reason
