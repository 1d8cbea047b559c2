"""
Cycles while another process holds the volume's lock.
"""

import json
import os

import pytest

from sidecar_runtime.health import Outcome
from tests.git_sync_wrapper.cycling import DOWN, ONE, THREE, TWO, Start
from tests.runtime.recording import Log


def test_a_standby_reports_the_published_commit_and_takes_over(start: Start, log: Log) -> None:
    first = start.published()
    second = start()

    def last_publish() -> float:
        return second.count("sidecar_last_publish_timestamp_seconds", sidecar="git-sync-wrapper")

    outcome = second.cycle()

    assert "waiting" == outcome.result
    published_at = second.context.status.readiness.published_at
    assert published_at is not None
    assert published_at == last_publish()
    assert f"pid {os.getpid()} on" in str(outcome.counts["holder"])
    assert second.context.status.readiness.ready
    assert ONE == second.context.status.readiness.revision
    first.stop()
    assert Outcome("unchanged", ONE) == second.cycle()
    assert published_at == last_publish()


@pytest.mark.parametrize("ref", ["main", ONE])
def test_a_one_shot_succeeds_if_the_lock_holder_is_up_to_date(start: Start, ref: str) -> None:
    start.published()
    second = start(GITSYNC_ONE_TIME="true", GITSYNC_REF=ref)

    assert Outcome("unchanged", ONE) == second.cycle()
    assert (1, ONE) == (second.runs(), second.context.status.readiness.revision)


def test_a_one_shot_waits_until_the_lock_holder_publishes_the_newest_commit(start: Start) -> None:
    first = start.published()
    second = start(GITSYNC_ONE_TIME="true")
    second.remote.error = DOWN
    waiting = second.cycle()
    assert ("waiting", DOWN) == (waiting.result, waiting.problem)
    second.remote.error = None
    second.commit(TWO)
    waiting = second.cycle()
    assert ("waiting", None) == (waiting.result, waiting.problem)

    first.cycle()

    assert Outcome("unchanged", TWO) == second.cycle()


def test_a_one_shot_succeeds_if_the_lock_holder_published_the_pinned_tag(start: Start) -> None:
    """TWO is the hash of an annotated tag, which git-sync peels to the commit ONE."""
    start.published(GITSYNC_REF=TWO)
    second = start(GITSYNC_ONE_TIME="true", GITSYNC_REF=TWO)
    other = start(GITSYNC_ONE_TIME="true", GITSYNC_REF=THREE)

    assert Outcome("unchanged", ONE) == second.cycle()
    assert "waiting" == other.cycle().result


def test_a_one_shot_succeeds_if_the_lock_holder_published_a_fallback(start: Start) -> None:
    first = start.published()
    first.session.close()
    record = first.root / ".snapshots/published.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fallback": TWO}))
    second = start(GITSYNC_ONE_TIME="true")
    second.commit(TWO)

    assert Outcome("unchanged", ONE) == second.cycle()


@pytest.mark.parametrize(("ref", "ends"), [("main", True), (TWO, False)])
def test_a_one_shot_does_not_wait_for_a_commit_that_the_lock_holders_gate_refuses(
    start: Start, ref: str, ends: bool
) -> None:
    gate = {"GIT_SYNC_WRAPPER_GATE": "syntax"}
    first = start.published(**gate)
    second = start(GITSYNC_ONE_TIME="true", GITSYNC_REF=ref, **gate)
    for one in (first, second):
        one.commit(TWO, "def\n")

    assert "refused" == first.cycle().result
    assert ("unchanged" if ends else "waiting") == second.cycle().result

    first.commit(THREE, "good = 1\n")
    first.cycle()
    assert "refused" not in (first.root / ".snapshots/published.json").read_text()


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_refused_commit_that_left_the_ref_is_no_longer_in_the_record(
    start: Start, *, is_restarted: bool
) -> None:
    gate = {"GIT_SYNC_WRAPPER_GATE": "syntax"}
    wrapper = start.published(**gate)
    wrapper.commit(TWO, "def\n")
    assert "refused" == wrapper.cycle().result
    if is_restarted:
        wrapper.stop()
        wrapper = start(**gate)

    wrapper.commit(ONE)
    wrapper.cycle()

    assert "refused" not in (wrapper.root / ".snapshots/published.json").read_text()


def test_without_a_file_list_a_standby_is_ready_and_a_one_shot_waits(start: Start) -> None:
    first = start.published()
    (first.root / f".snapshots/{ONE}.files").unlink()
    second = start()
    one_shot = start(GITSYNC_ONE_TIME="true")

    assert ("waiting", "waiting") == (second.cycle().result, one_shot.cycle().result)

    readiness = second.context.status.readiness
    doubt = f"{ONE} cannot be checked: the list of its files is missing or incomplete"
    assert (True, doubt) == (readiness.ready, readiness.shortfall)
    first.cycle(is_asked_for=True)
    assert Outcome("unchanged", ONE) == one_shot.cycle()
    second.cycle()
    assert "" == second.context.status.readiness.shortfall
