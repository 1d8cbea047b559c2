"""
Failures of passes and comparisons, and the recovery from them.
"""

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


def test_reports_a_failed_pass_and_does_not_retry_it_immediately(one: Sidecar) -> None:
    one.pace = Pace(settle_seconds=0.0)
    one.site.write(FIX.split("with sqlite3")[0] + "raise ValueError('no such thing')")
    session = one.begin()
    one.add_role()

    first, second = failure(session), failure(session)

    assert ("pass_failed", "pass_failed", 1) == (first.reason, second.reason, one.passes)
    assert first.message.endswith("ValueError: no such thing")
    assert {("roles", "error"): 1} == one.counted()


@pytest.mark.parametrize(
    ("program", "reason"),
    [("sum(range(10**6)); raise ValueError", "pass_failed"), ("while True: pass", "pass_timeout")],
)
def test_a_failed_pass_stays_failed_while_its_retry_is_postponed(
    one: Sidecar, program: str, reason: str
) -> None:
    """Reporting a success without a pass would end the alert and the backoff."""
    one.pace = Pace(0.0, 0.0, 0.0, core_share=1e-6, news_seconds=0.0)
    one.site.write(program)
    session = one.begin(SYNC_PERM_TIMEOUT="1")
    one.add_role()

    errors = [failure(session).reason for _ in range(2)]

    assert ([reason] * 2, {("roles", "error"): 1}) == (errors, one.counted())


@pytest.mark.parametrize(
    ("program", "settings", "reason", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", {}, "pass_killed", ""),
        ("import time; time.sleep(600)", {"SYNC_PERM_TIMEOUT": "1"}, "pass_timeout", ""),
        ("import MySQLdb", {}, "driver_missing", "'MySQLdb'"),
    ],
)
def test_each_kind_of_failure_has_its_own_reason(
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
def test_falls_back_to_the_command_if_the_script_does_not_fit(one: Sidecar, moved: str) -> None:
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
    assert ("changed", 2) == (run(session).result, one.passes)  # the script is not tried again


@pytest.mark.parametrize(
    ("parameters", "mode"), [("self, *, dag", "cli"), ("self, dag_id, access", "targeted")]
)
def test_falls_back_only_if_a_call_for_a_dag_does_not_fit(
    one: Sidecar, parameters: str, mode: str
) -> None:
    """A TypeError in Airflow's own code may be due to that DAG alone."""
    one.cli_because, one.include_dags = None, True
    manager = one.site.packages / "airflow/www/security_appless.py"
    with manager.open("a") as module:
        module.write(f"    def sync_perm_for_dag({parameters}):\n        len(1, 2)\n")
    one.sqlite.serialize("d", "1")

    run(one.begin())

    assert (mode, mode == "cli") == (one.mode[0], one.passes > 0)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise ValueError('the database is unwell')\n", "1: ValueError: the database is unwell"),
        ("raise AssertionError\n", "1: AssertionError"),  # without a message
    ],
)
def test_keeps_using_the_script_if_it_fails_for_another_cause(
    one: Sidecar, program: str, said: str
) -> None:
    one.cli_because = None
    session = one.running()
    one.site.add_python(program)
    one.add_role()

    error = failure(session)

    assert ("pass_failed", 0, "targeted") == (error.reason, one.passes, one.mode[0])
    assert error.message.endswith(said)


def test_a_missing_airflow_command_has_its_own_reason(one: Sidecar) -> None:
    session = one.begin()
    one.add_role()
    one.site.command.unlink()

    assert "airflow_missing" == failure(session).reason


def test_reports_that_no_process_can_start(one: Sidecar) -> None:
    session = one.begin(TOO_LONG="x" * (1 << 18))
    one.add_role()

    error = failure(session)

    assert "pass_failed" == error.reason
    assert error.message.endswith("cannot be started: Argument list too long")


def test_a_temporary_folder_that_is_not_writable_has_its_own_reason(one: Sidecar) -> None:
    session = one.running()
    one.add_role()
    (one.folder / "task.json").mkdir()

    error = failure(session)

    assert ("tmpdir_failed", 0) == (error.reason, one.passes)
    assert str(one.folder) in error.message


def test_logs_that_the_definition_is_unread_if_it_cannot_write_files(one: Sidecar) -> None:
    one.reads_definition = True
    (one.folder / "empty").touch()

    with capture_logs() as logs:
        run(one.begin())

    said = [line["reason"] for line in logs if line["event"] == "definition_unread"]
    assert ["tmpdir_failed"] == said


def test_recovers_after_the_cause_of_a_failure_is_fixed(one: Sidecar) -> None:
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
    assert ("changed", 2) == (run(session).result, one.passes)  # no backoff remains


def test_reports_a_missing_table_and_recovers_when_it_exists_again(one: Sidecar) -> None:
    session = one.running()
    one.sqlite.run("ALTER TABLE ab_role RENAME TO gone")

    lost = failure(session)
    ready = one.sidecar.readiness().ready
    one.sqlite.run("ALTER TABLE gone RENAME TO ab_role")

    assert ("database_not_migrated", True) == (lost.reason, ready)
    assert "unchanged" == run(session).result


def test_an_abandoned_cycle_starts_no_pass_and_stays_ready(one: Sidecar, revoked: Fence) -> None:
    """The next cycle may already have shown a newer state."""
    session = one.running()
    one.add_role()

    with pytest.raises(CycleAbandoned):
        session.cycle(revoked)

    assert (0, True) == (one.passes, one.sidecar.readiness().ready)


def test_stopping_a_pass_with_its_cycle_does_not_count_as_a_failure(one: Sidecar) -> None:
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
