"""
When a pass runs, and when it does not.
"""

import shutil
import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from sidecar_runtime.fence import CycleAbandoned, Fence
from sync_perm.cycle import Session
from sync_perm.database import sqlite
from sync_perm.database.database import Driver
from sync_perm.database.lock import PassLock
from sync_perm.pace import Pace
from tests.support.waiting import wait_until
from tests.sync_perm.sidecar import CONN_CMD, FIX, UNREAD, Sidecar, failure, run


def test_runs_no_pass_while_nothing_differs(one: Sidecar) -> None:
    session = one.begin()

    results = [run(session).result for _ in range(3)]

    assert (["unchanged"] * 3, 0) == (results, one.passes)
    assert one.sidecar.readiness().ready


def test_restores_a_default_roles_lost_permission_before_it_is_ready(one: Sidecar) -> None:
    one.reads_definition = True
    one.site.add_python(granted="'Admin', 'Viewer'")
    one.site.write(FIX.replace("'team'", "'Viewer'"))
    session = one.begin()

    with PassLock(one.sqlite.address) as other:
        assert other.try_acquire()
        run(session)
    ready = one.sidecar.readiness().ready

    assert ("changed", 1, False) == (run(session).result, one.passes, ready)
    assert one.sidecar.readiness().ready
    assert ("unchanged", 1) == (run(session).result, one.passes)


@pytest.mark.parametrize("settings", [{"SYNC_PERM_ONE_SHOT": "true"}, {}], ids=["hook", "SIGHUP"])
def test_a_requested_pass_that_leaves_out_rows_is_not_believed(
    one: Sidecar, settings: dict[str, str]
) -> None:
    """FAB 1 logs an error for each row that it cannot write, and succeeds."""
    one.reads_definition = True
    one.site.add_python(granted="'Admin', 'Viewer'")
    one.site.write(FIX.split("with sqlite3")[0])
    session = one.begin(**settings)

    ends = [run(session, is_asked=not settings) for _ in range(2)]

    problems = {(end.result, end.problem and end.problem.reason) for end in ends}
    assert {("partial", "permissions_differ")} == problems
    assert not one.sidecar.readiness().ready
    one.site.write(FIX.replace("'team'", "'Viewer'"))
    assert ("changed", True) == (run(session, is_asked=True).result, one.sidecar.readiness().ready)


def test_runs_a_pass_before_it_is_ready_if_the_definition_is_unreadable(one: Sidecar) -> None:
    one.reads_definition = True
    one.site.add_python("raise ImportError('moved')\n")
    session = one.begin()

    with capture_logs() as logs, PassLock(one.sqlite.address) as other:
        assert other.try_acquire()
        run(session)
    ready = one.sidecar.readiness().ready
    run(session)

    unread = [line for line in logs if line["event"] == "definition_unread"]
    assert [("pass_failed", True)] == [(e["reason"], "moved" in e["error"]) for e in unread]
    assert (False, {("start", "success"): 1}) == (ready, one.counted())
    assert one.sidecar.readiness().ready
    one.sqlite.run("DELETE FROM ab_permission_view_role")  # rows lost later are noticed
    assert "changed" == run(session).result


def test_names_the_plugins_whose_views_were_not_compared(one: Sidecar) -> None:
    """They may need the metadata database, which is not there when the definition is read."""
    one.reads_definition = True
    (one.site.packages / "airflow/plugins_manager.py").write_text(
        "import_errors = {'/plugins/corp.py': 'Variable corp_title does not exist'}\n"
    )
    session = one.begin()

    result = run(session).result

    assert ("unchanged", True) == (result, one.sidecar.readiness().ready)
    assert "not compared: /plugins/corp.py" in one.sidecar.readiness().shortfall


@pytest.mark.parametrize(
    ("program", "result"), [(UNREAD, "partial"), ("raise ImportError('moved')\n", "unchanged")]
)
def test_a_one_shot_waits_for_a_definition_unless_it_can_never_be_read(
    one: Sidecar, program: str, result: str
) -> None:
    one.reads_definition = True
    one.site.add_python(program)
    session = one.begin(SYNC_PERM_ONE_SHOT="true")

    end = run(session)
    ready = one.sidecar.readiness()
    one.site.add_python()

    assert (result, True) == (end.result, ready.ready)
    assert "could not be read, so it was not compared" in ready.shortfall
    wait_until(lambda: run(session).is_success, "it is done")
    assert {("asked", "success"): 1} == one.counted()


def test_reads_the_definition_again_after_an_abandoned_cycle(one: Sidecar) -> None:
    one.reads_definition = True
    one.site.add_python("import time; time.sleep(600)\n")
    session = one.begin()
    fence = Fence()
    ends: list[BaseException | None] = []

    def cycle() -> None:
        try:
            session.cycle(fence)
        except CycleAbandoned as error:
            ends.append(error)

    thread = threading.Thread(target=cycle)
    with capture_logs() as logs:
        thread.start()
        wait_until((one.folder / "task.json").exists, "it reads")
        fence.revoke()
        thread.join()
    one.site.add_python()
    run(one.sidecar.begin())

    assert (1, []) == (len(ends), [e for e in logs if e["event"] == "definition_unread"])
    assert ({}, True) == (one.counted(), one.sidecar.readiness().ready)


def test_waits_for_rows_that_the_web_server_writes_at_its_start(one: Sidecar) -> None:
    one.pace = Pace(settle_seconds=3600.0)
    session = one.begin()
    one.add_role()

    settling = [run(session).result for _ in range(2)]
    ready = one.sidecar.readiness().ready
    one.grant_role()

    assert (["settling"] * 2, False) == (settling, ready)
    assert ("unchanged", 0) == (run(session).result, one.passes)
    assert one.sidecar.readiness().ready


def test_reads_the_tables_again_although_the_fingerprint_is_the_same(one: Sidecar) -> None:
    one.pace = Pace(resync_seconds=0.0, quiet_seconds=0.0, settle_seconds=0.0)
    session = one.running()
    one.add_role()
    session._seen = session._fingerprint(Fence())  # hides the change

    assert ("changed", 1) == (run(session).result, one.passes)


def end_connection(session: Session) -> None:
    """End the open connection as a server does; SQLite has none."""
    database = session._open(Fence())
    lost = {**vars(sqlite), "explain": lambda _: "database_lost"}
    database.driver = cast(Driver, SimpleNamespace(**lost))
    database.close()


def test_a_connection_that_ended_while_it_was_idle_is_opened_again(one: Sidecar) -> None:
    """Servers, PgBouncer and networks end such connections."""
    session = one.running()
    read_at = session._read_at
    end_connection(session)

    assert ("unchanged", read_at) == (run(session).result, session._read_at)
    end_connection(session)
    one.sqlite.run("DROP TABLE ab_role")
    assert "database_not_migrated" == failure(session).reason, "of the new connection"


def test_notices_that_the_file_of_sqlite_was_replaced(one: Sidecar) -> None:
    """An open file stays readable after another one has its name."""
    session = one.running()
    path, copy = one.sqlite.path, one.sqlite.path.with_suffix(".copy")
    shutil.copy(path, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as restored:
        restored.execute("DELETE FROM ab_permission_view_role")
    copy.rename(path)

    assert ("changed", 1) == (run(session).result, one.passes)
    path.unlink()
    assert "database_missing" == failure(session).reason


def test_fixes_a_late_role_with_one_pass(one: Sidecar) -> None:
    session = one.running()
    one.add_role()

    outcome = run(session)

    assert ("changed", 1, 1) == (outcome.result, outcome.counts["grants_added"], one.passes)
    assert "unchanged" == run(session).result
    assert 1 == one.passes
    assert one.sidecar.readiness().ready
    run(session, is_asked=True)
    one.sqlite.run("INSERT INTO ab_role (name) VALUES ('another')")
    one.site.write(FIX.replace("'team'", "'another'"))
    run(session)
    passes = {("asked", "success"): 1, ("roles", "success"): 2}
    assert passes == one.counted()


def test_a_pass_uses_the_url_that_the_connection_command_prints_now(one: Sidecar) -> None:
    """After a password rotation, our open connection works, but the old URL does not."""
    printed = one.folder / "connection"
    printed.write_text(f"{one.sqlite.address.url}?password=old")
    path = '.removeprefix("sqlite:///")'
    one.site.write(
        FIX.replace(path, f'{path}.removesuffix("?password=new")')
    )  # with the old password, no such file exists
    session = one.running(**{CONN_CMD: f"cat {printed}"})
    one.add_role()
    printed.write_text(f"{one.sqlite.address.url}?password=new")

    assert ("changed", 1) == (run(session).result, one.passes)


def test_a_one_shot_always_runs_a_pass(one: Sidecar) -> None:
    assert ("unchanged", 1) == (run(one.begin(SYNC_PERM_ONE_SHOT="true")).result, one.passes)


def test_a_one_shot_does_not_succeed_while_rows_are_missing(one: Sidecar) -> None:
    """It starts Airflow no more often than the daemon does."""
    one.site.write(FIX.split("with sqlite3")[0])
    session = one.begin(SYNC_PERM_ONE_SHOT="true")
    one.add_role()

    ends = [run(session) for _ in range(3)]
    problems = {(end.problem.reason, end.problem.message) for end in ends if end.problem}
    passes = one.passes
    one.grant_role()

    assert (["partial"] * 3, 2) == ([end.result for end in ends], passes)
    assert {("permissions_differ", "permissions that differ from their definition: 1")} == problems
    assert ("unchanged", True) == (run(session).result, one.sidecar.readiness().ready)


def test_counts_written_rows_even_if_others_are_still_missing(one: Sidecar) -> None:
    session = one.begin()
    one.sqlite.run("INSERT INTO ab_role (name) VALUES ('team'), ('other')")

    end = run(session)

    assert ("partial", 1) == (end.result, end.counts["grants_added"])
    assert end.problem and "permissions_differ" == end.problem.reason


def test_rows_that_two_passes_did_not_fix_delay_no_new_difference(one: Sidecar) -> None:
    one.site.write(FIX.split("with sqlite3")[0])
    session = one.begin()
    one.add_role()
    first = run(session)
    run(session)
    assert ("partial", {}, 2) == (first.result, first.counts, one.passes)
    assert not one.sidecar.readiness().ready
    one.sqlite.run("INSERT INTO ab_role (name) VALUES ('another')")

    run(session)

    assert 4 == one.passes


def test_the_next_cycle_fixes_rows_that_appear_during_the_last_pass(one: Sidecar) -> None:
    """The fingerprint is taken after the pass, so the next poll would show no change."""
    late = "INSERT INTO ab_role (name) VALUES ('late')"
    one.site.write(
        FIX.split("with sqlite3")[0] + "if open(path + '.passes').read() == 'xx':\n"
        f"    sqlite3.connect(path, isolation_level=None).execute({late!r})\n"
    )
    session = one.begin()
    one.add_role()
    run(session)
    one.site.write(FIX.replace("'team'", "'late'"))

    assert (1, 3) == (run(session).counts["grants_added"], one.passes)


def test_a_new_difference_after_each_pass_is_not_logged_as_kept(one: Sidecar) -> None:
    late = "INSERT INTO ab_role (name) VALUES ('late' || (SELECT COUNT(*) FROM ab_role))"
    fix = FIX.replace("name IN ('Admin', 'team')", "id > 5")
    one.site.write(f"{fix}    db.execute({late!r})\n")
    session = one.begin()
    one.add_role()

    with capture_logs() as logs:
        run(session)

    assert ([], 2) == ([e for e in logs if e["event"] == "difference_kept"], one.passes)


def test_postpones_rows_that_are_deleted_repeatedly_but_not_a_new_role(one: Sidecar) -> None:
    one.pace = Pace(quiet_seconds=0.0, settle_seconds=0.0, core_share=1e-6)
    session = one.running()
    one.add_role()
    results = [run(session).result]
    with capture_logs() as logs:
        for _ in range(3):
            one.sqlite.run("DELETE FROM ab_permission_view_role WHERE role_id > 5")
            one.sqlite.run("INSERT INTO ab_view_menu (name) VALUES ('unrelated')")
            results.append(run(session).result)
    passes, ready = one.passes, one.sidecar.readiness().ready

    one.sqlite.run("INSERT INTO ab_role (name) VALUES ('another')")
    one.site.write(FIX.replace("'team'", "'team', 'another'"))
    results.append(run(session).result)

    postponed = [line["rows"] for line in logs if line["event"] == "pass_postponed"]
    assert ["changed", "changed", "partial", "partial", "changed"] == results
    assert (2, False) == (passes, ready)
    assert [[["role_grant", "", ("team", "can_read", "Website")]]] == postponed  # once
    assert one.sidecar.readiness().ready


def test_fixes_postponed_rows_later_without_another_change(one: Sidecar) -> None:
    one.pace = Pace(quiet_seconds=0.0, settle_seconds=0.0, core_share=0.1)
    session = one.running()
    one.add_role()
    run(session)
    for _ in range(2):
        one.sqlite.run("DELETE FROM ab_permission_view_role WHERE role_id > 5")
        run(session)

    wait_until(lambda: run(session).result == "changed", "its turn comes")
    assert (3, True) == (one.passes, one.sidecar.readiness().ready)


def test_waits_while_another_process_holds_the_lock(one: Sidecar) -> None:
    session = one.begin()
    one.add_role()

    with PassLock(one.sqlite.address) as other:
        assert other.try_acquire()
        waiting = run(session).result
    after = run(session).result

    assert ("waiting", "changed", 1) == (waiting, after, one.passes)


def test_a_requested_pass_runs_after_the_lock_is_released(one: Sidecar) -> None:
    session = one.running()

    with PassLock(one.sqlite.address) as other:
        assert other.try_acquire()
        waiting = run(session, is_asked=True).result
    run(session)
    run(session)

    assert ("waiting", 1) == (waiting, one.passes)
