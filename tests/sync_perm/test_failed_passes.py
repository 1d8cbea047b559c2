"""
How passes and looks fail, and what is left of that.
"""

import errno
import os
import threading
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sync_perm.pace import Pace
from tests.support.raising import raised
from tests.support.waiting import wait_until
from tests.sync_perm.sidecar import FIX, Sidecar, failure, run


def test_a_failed_pass_is_said_and_repeated_later(one: Sidecar) -> None:
    one.pace = Pace(settle_seconds=0.0)
    one.site.write(FIX.split("with sqlite3")[0] + "raise ValueError('no such thing')")
    session = one.begin()
    one.add_role()

    first, second = failure(session), failure(session)

    assert ("pass_failed", "pass_failed", 1) == (first.reason, second.reason, one.passes)
    assert first.message.endswith("ValueError: no such thing")
    assert {("roles", "error"): 1} == one.counted()


def test_a_failure_that_waits_for_its_share_of_a_core_stays_a_failure(one: Sidecar) -> None:
    """A success that nothing has done would end the alert, and the backoff with it."""
    one.pace = Pace(0.0, 0.0, 0.0, core_share=1e-6, news_seconds=0.0)
    one.site.write("sum(range(10**6)); raise ValueError")
    session = one.begin()
    one.add_role()

    errors = [failure(session).reason for _ in range(2)]

    assert (["pass_failed"] * 2, {("roles", "error"): 1}) == (errors, one.counted())


@pytest.mark.parametrize(
    ("program", "settings", "reason", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", {}, "pass_killed", ""),
        ("import time; time.sleep(600)", {"SYNC_PERM_TIMEOUT": "1"}, "pass_timeout", ""),
        ("import MySQLdb", {}, "driver_missing", "'MySQLdb'"),
    ],
)
def test_each_way_to_fail_has_its_own_reason(
    one: Sidecar, program: str, settings: dict[str, str], reason: str, said: str
) -> None:
    one.site.write(program)
    session = one.begin(**settings)
    one.add_role()

    error = failure(session)

    assert reason == error.reason
    assert said in error.message
    assert reason != "driver_missing" or "Airflow image" in error.advice


@pytest.mark.parametrize(
    "moved",
    [
        "raise ImportError('moved')\n",
        "{}.moved\n",
        "len(1, 2)\n",
        "import airflow.no_such_module\n",
    ],
)
def test_where_the_script_does_not_fit_this_airflow_its_command_takes_over(
    one: Sidecar, moved: str
) -> None:
    one.cli_because = None
    session = one.running()
    targeted = one.mode
    one.site.add_python(moved)
    one.add_role()

    with capture_logs() as logs:
        outcome = run(session)

    said = [line["error"] for line in logs if line["event"] == "targeted_failed"]
    assert ("changed", 1, 1) == (outcome.result, one.passes, len(said))
    assert {("roles", "success"): 1} == one.counted()
    assert ("targeted", {}) == targeted
    assert ("cli", {"script": 1.0}) == one.mode
    one.site.add_python()
    one.sqlite.run("DELETE FROM ab_permission_view_role")
    assert ("changed", 2) == (run(session).result, one.passes)  # it is not tried again


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise ValueError('the database is unwell')\n", "1: ValueError: the database is unwell"),
        ("raise AssertionError\n", "1: AssertionError"),  # without a word
    ],
)
def test_a_script_that_fails_for_another_cause_is_not_given_up(
    one: Sidecar, program: str, said: str
) -> None:
    one.cli_because = None
    session = one.running()
    one.site.add_python(program)
    one.add_role()

    error = failure(session)

    assert ("pass_failed", 0, "targeted") == (error.reason, one.passes, one.mode[0])
    assert error.message.endswith(said)


def test_a_command_that_vanished_has_its_own_reason(one: Sidecar) -> None:
    session = one.begin()
    one.add_role()
    one.site.command.unlink()

    assert "airflow_missing" == failure(session).reason


def test_where_no_process_can_be_started_it_is_no_bug(
    one: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    session = one.begin()
    one.add_role()
    monkeypatch.setattr("sidecar_runtime.child.subprocess.Popen", full)

    error = failure(session)

    assert "pass_failed" == error.reason
    assert error.message.endswith("cannot be started: Resource temporarily unavailable")


def test_a_folder_that_cannot_be_written_has_its_own_reason(one: Sidecar) -> None:
    session = one.running()
    one.add_role()
    (one.folder / "task.json").mkdir()

    error = failure(session)

    assert ("tmpdir_failed", 0) == (error.reason, one.passes)
    assert str(one.folder) in error.message


def test_where_nothing_can_be_written_nothing_is_read(one: Sidecar) -> None:
    one.reads_definition = True
    (one.folder / "empty").touch()

    with capture_logs() as logs:
        run(one.begin())

    said = [line["reason"] for line in logs if line["event"] == "definition_unread"]
    assert ["tmpdir_failed"] == said


def test_recovers_by_itself(one: Sidecar) -> None:
    one.site.write("raise SystemExit(1)")
    session = one.begin()
    one.add_role()
    failure(session)
    one.site.write(FIX)

    def recovered() -> bool:
        with suppress(SidecarError):  # the last error again, until the pause is over
            return run(session).result == "changed"
        return False

    wait_until(recovered, "a pass succeeds")
    assert 1 == one.passes
    one.sqlite.run("DELETE FROM ab_permission_view_role")
    assert ("changed", 2) == (run(session).result, one.passes)  # nothing is left of the failure


def test_a_lost_database_is_said_and_found_again(one: Sidecar) -> None:
    session = one.running()
    one.sqlite.run("ALTER TABLE ab_role RENAME TO gone")

    lost = failure(session)
    ready = one.sidecar.readiness().ready
    one.sqlite.run("ALTER TABLE gone RENAME TO ab_role")

    assert ("database_not_migrated", True) == (lost.reason, ready)
    assert "unchanged" == run(session).result


def test_an_abandoned_cycle_starts_no_pass_and_shows_nothing(one: Sidecar, revoked: Fence) -> None:
    """What it has seen is older than what the next one may have shown meanwhile."""
    session = one.running()
    one.add_role()

    with pytest.raises(CycleAbandoned):
        session.cycle(revoked)

    assert (0, True) == (one.passes, one.sidecar.readiness().ready)


def test_a_pass_that_its_cycle_has_ended_is_not_called_killed(one: Sidecar) -> None:
    one.site.write(f"{FIX.partition('with sqlite3')[0]}import time; time.sleep(600)\n")
    session = one.begin()
    one.add_role()
    fence = Fence()
    thread = threading.Thread(target=lambda: raised(CycleAbandoned, session.cycle, fence))
    thread.start()
    wait_until(lambda: one.passes, "it runs")

    fence.revoke()
    thread.join()
    one.site.write(FIX)

    assert ("changed", 2) == (run(one.sidecar.begin()).result, one.passes)
