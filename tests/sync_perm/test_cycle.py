"""
When a pass runs, and what its end means; Airflow's command is a script that edits SQLite.
"""

import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Outcome
from sync_perm.airflow.passes import AirflowPasses
from sync_perm.airflow_config import AirflowConfig
from sync_perm.comparison import Comparison
from sync_perm.cycle import Session
from sync_perm.database.connection import find_source
from sync_perm.database.lock import PassLock
from sync_perm.metrics import PermMetrics
from sync_perm.pace import Pace
from sync_perm.plan import CliCause
from sync_perm.role_file.file import RoleFile
from sync_perm.settings import load_settings
from sync_perm.sidecar import SyncPerm
from sync_perm.status import Status
from tests.support.raising import raised
from tests.support.waiting import wait_until
from tests.sync_perm.given import AIRFLOW_2, Sqlite, tables
from tests.sync_perm.site import Site

FIX = """
import os, sqlite3, sys
print("arguments", *sys.argv[1:])
path = os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///")
open(path + ".passes", "a").write("x")
with sqlite3.connect(path) as db:
    db.execute(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id) "
        "SELECT 1, id FROM ab_role WHERE name IN ('Admin', 'team') AND id NOT IN "
        "(SELECT role_id FROM ab_permission_view_role)"
    )
"""


CONN = "AIRFLOW__CORE__SQL_ALCHEMY_CONN"
CONN_CMD = f"{CONN}_CMD"


class Sidecar:
    """
    A sidecar without its loop, on SQLite, with a stand-in for Airflow's command.

    Attributes:
        reads_definition: Whether what roles must have is still to be read, which takes a process.
    """

    def __init__(self, folder: Path, sqlite: Sqlite) -> None:
        self.pace = Pace(quiet_seconds=0.05, settle_seconds=0.0)
        self.site = Site(folder / "site")
        self.cli_because: CliCause | None = "setting"
        self.site.write(FIX)
        self.site.add_python()
        self.sqlite = sqlite
        self.folder = folder
        self.airflow = AIRFLOW_2
        self.reads_definition = False
        sqlite.run("INSERT INTO ab_permission VALUES (1, 'can_read')")
        sqlite.run("INSERT INTO ab_view_menu VALUES (1, 'Website')")
        sqlite.run("INSERT INTO ab_permission_view VALUES (1, 1, 1)")
        for number, role in enumerate(("Admin", "Public", "Viewer", "User", "Op"), 1):
            sqlite.run("INSERT INTO ab_role VALUES (?, ?)", number, role)
        sqlite.run("INSERT INTO ab_permission_view_role VALUES (1, 1, 1)")

    def begin(self, **settings: str) -> Session:
        environ = self.site.environment(
            SYNC_PERM_TARGETED="false",
            SYNC_PERM_INCLUDE_DAGS="false",
            **(settings if CONN_CMD in settings else {CONN: self.sqlite.address.url, **settings}),
        )
        config = AirflowConfig(environ)
        airflow = replace(self.airflow, command=str(self.site.command), python=sys.executable)
        self.metrics = PermMetrics("0", "0")
        read = load_settings(environ)[0]
        file = RoleFile(read.roles, airflow.resources) if read.roles else None
        comparison = Comparison(airflow, include_dags=False, file=file)
        if not self.reads_definition:
            comparison.define(tables())
        self.sidecar = SyncPerm(
            read,
            find_source(config),
            AirflowPasses(airflow, config, str(self.folder), self.cli_because),
            comparison,
            self.metrics,
            Status(self.metrics),
            self.pace,
        )
        return self.sidecar.begin()

    def add_role(self) -> None:
        self.sqlite.run("INSERT INTO ab_role (name) VALUES ('team')")

    def counted(self) -> dict[tuple[str, str], float]:
        """The passes that the metrics count, by what they were for and how they ended."""
        (family,) = (
            one for one in self.metrics.registry.collect() if one.name == "sync_perm_passes"
        )
        return {
            (one.labels["reason"], one.labels["result"]): one.value
            for one in family.samples
            if one.name.endswith("_total") and one.value
        }

    @property
    def mode(self) -> tuple[object, dict[str, float]]:
        """What the status page says, and why by the metrics."""
        (family,) = (one for one in self.metrics.registry.collect() if one.name == "sync_perm_cli")
        causes = {one.labels["reason"]: one.value for one in family.samples if one.value}
        return self.sidecar.details()["mode"], causes

    @property
    def passes(self) -> int:
        path = Path(f"{self.sqlite.path}.passes")
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def one(tmp_path: Path, sqlite: Sqlite) -> Sidecar:
    return Sidecar(tmp_path, sqlite)


def run(session: Session, *, is_asked: bool = False) -> Outcome:
    return session.cycle(Fence(is_asked_for=is_asked))


def failure(session: Session) -> SidecarError:
    return raised(SidecarError, run, session)


def test_nothing_differs_and_nothing_is_started(one: Sidecar) -> None:
    session = one.begin()

    results = [run(session).result for _ in range(3)]

    assert (["unchanged"] * 3, 0) == (results, one.passes)
    assert one.sidecar.readiness().ready


def test_what_a_default_role_lost_before_the_start_is_written_before_it_is_ready(
    one: Sidecar,
) -> None:
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


def test_what_cannot_be_read_is_written_before_it_is_called_good(one: Sidecar) -> None:
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
    one.sqlite.run("DELETE FROM ab_permission_view_role")  # what is lost later is noticed
    assert "changed" == run(session).result


def test_reading_that_is_cut_short_is_begun_again(one: Sidecar) -> None:
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


def test_what_the_web_server_writes_at_its_own_start_is_left_to_it(one: Sidecar) -> None:
    one.pace = Pace(settle_seconds=3600.0)
    session = one.begin()
    one.add_role()

    settling = [run(session).result for _ in range(2)]
    ready = one.sidecar.readiness().ready
    one.sqlite.run(
        "INSERT INTO ab_permission_view_role (permission_view_id, role_id)"
        " SELECT 1, id FROM ab_role WHERE name = 'team'"
    )

    assert (["settling"] * 2, False) == (settling, ready)
    assert ("unchanged", 0) == (run(session).result, one.passes)
    assert one.sidecar.readiness().ready


def test_the_shipped_waits() -> None:
    budget = {"core_share": 0.05, "damage_seconds": 20.0, "news_seconds": 120.0}
    assert Pace(3600.0, 5.0, 5.0, **budget) == Pace()


def test_the_tables_are_read_again_though_the_fingerprint_is_the_same(one: Sidecar) -> None:
    one.pace = Pace(resync_seconds=0.0, quiet_seconds=0.0, settle_seconds=0.0)
    session = one.begin()
    run(session)
    one.add_role()
    session._seen = session._fingerprint(session._open(Fence()))  # a change that it does not show

    assert ("changed", 1) == (run(session).result, one.passes)


def test_a_late_role_is_served_by_one_pass(one: Sidecar) -> None:
    session = one.begin()
    run(session)
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


def test_a_pass_gets_what_the_command_prints_now(one: Sidecar) -> None:
    """A password that is rotated lets our own connection live on, and nobody else in."""
    printed = one.folder / "connection"
    printed.write_text(f"{one.sqlite.address.url}?password=old")
    path = '.removeprefix("sqlite:///")'
    one.site.write(
        FIX.replace(path, f'{path}.removesuffix("?password=new")')
    )  # with the old one it finds no such file
    session = one.begin(**{CONN_CMD: f"cat {printed}"})
    run(session)
    one.add_role()
    printed.write_text(f"{one.sqlite.address.url}?password=new")

    assert ("changed", 1) == (run(session).result, one.passes)


def test_a_rehearsal_that_is_asked_for_is_one_and_starts_nothing(one: Sidecar) -> None:
    session = one.begin(SYNC_PERM_DRY_RUN="true")

    with capture_logs() as logs:
        run(session, is_asked=True)
        run(session)

    assert ["asked"] == [line["reason"] for line in logs if line["event"] == "pass_planned"]
    one.add_role()
    assert ("unchanged", 0) == (run(session).result, one.passes)
    assert not one.sidecar.readiness().ready


def test_a_one_shot_always_runs_one(one: Sidecar) -> None:
    assert ("unchanged", 1) == (run(one.begin(SYNC_PERM_ONE_SHOT="true")).result, one.passes)


def test_what_two_passes_do_not_fix_waits_and_holds_back_no_new_difference(one: Sidecar) -> None:
    one.site.write(FIX.split("with sqlite3")[0])
    session = one.begin()
    one.add_role()
    first = run(session)
    run(session)
    assert ("unchanged", 2) == (first.result, one.passes)
    assert not one.sidecar.readiness().ready
    one.sqlite.run("INSERT INTO ab_role (name) VALUES ('another')")

    run(session)

    assert 4 == one.passes


def test_what_comes_during_the_last_pass_is_for_the_next_cycle(one: Sidecar) -> None:
    """The fingerprint is of after the pass, and would show no change."""
    late = "INSERT INTO ab_role (name) VALUES ('late')"
    one.site.write(
        FIX.split("with sqlite3")[0] + "if open(path + '.passes').read() == 'xx':\n"
        f"    sqlite3.connect(path, isolation_level=None).execute({late!r})\n"
    )
    session = one.begin()
    one.add_role()
    run(session)
    one.site.write(FIX.replace("'team'", "'late'"))

    assert ("changed", 3) == (run(session).result, one.passes)


def test_rows_that_are_taken_again_and_again_wait_and_a_new_role_does_not(one: Sidecar) -> None:
    one.pace = Pace(quiet_seconds=0.0, settle_seconds=0.0, core_share=1e-6)
    session = one.begin()
    run(session)
    one.add_role()
    results = [run(session).result]
    for _ in range(3):
        one.sqlite.run("DELETE FROM ab_permission_view_role WHERE role_id > 5")
        with capture_logs() as logs:
            results.append(run(session).result)
    passes, ready = one.passes, one.sidecar.readiness().ready

    one.sqlite.run("INSERT INTO ab_role (name) VALUES ('another')")
    one.site.write(FIX.replace("'team'", "'team', 'another'"))
    results.append(run(session).result)

    postponed = [line["rows"] for line in logs if line["event"] == "pass_postponed"]
    assert ["changed", "changed", "unchanged", "unchanged", "changed"] == results
    assert (2, False) == (passes, ready)
    assert [] == postponed  # it was said the time before
    assert one.sidecar.readiness().ready


def test_what_had_to_wait_is_fixed_without_another_change(one: Sidecar) -> None:
    one.pace = Pace(quiet_seconds=0.0, settle_seconds=0.0, core_share=0.1)
    session = one.begin()
    run(session)
    one.add_role()
    run(session)
    for _ in range(2):
        one.sqlite.run("DELETE FROM ab_permission_view_role WHERE role_id > 5")
        run(session)

    wait_until(lambda: run(session).result == "changed", "its turn comes")
    assert (3, True) == (one.passes, one.sidecar.readiness().ready)


def test_another_holder_of_the_lock_is_waited_for(one: Sidecar) -> None:
    session = one.begin()
    one.add_role()

    with PassLock(one.sqlite.address) as other:
        assert other.try_acquire()
        waiting = run(session).result
    after = run(session).result

    assert ("waiting", "changed", 1) == (waiting, after, one.passes)


def test_a_wish_that_meets_the_lock_is_not_forgotten(one: Sidecar) -> None:
    session = one.begin()
    run(session)

    with PassLock(one.sqlite.address) as other:
        assert other.try_acquire()
        waiting = run(session, is_asked=True).result
    run(session)
    run(session)

    assert ("waiting", 1) == (waiting, one.passes)


def test_a_failed_pass_is_said_and_repeated_later(one: Sidecar) -> None:
    one.pace = Pace(settle_seconds=0.0)
    one.site.write(FIX.split("with sqlite3")[0] + "raise ValueError('no such thing')")
    session = one.begin()
    one.add_role()

    first, second = failure(session), failure(session)

    assert ("pass_failed", "pass_failed", 1) == (first.reason, second.reason, one.passes)
    assert first.message.endswith("ValueError: no such thing")
    assert {("roles", "error"): 1} == one.counted()


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
    session = one.begin()
    run(session)
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
    session = one.begin()
    run(session)
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


def test_a_folder_that_cannot_be_written_has_its_own_reason(one: Sidecar) -> None:
    session = one.begin()
    run(session)
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
    session = one.begin()
    run(session)
    one.sqlite.run("ALTER TABLE ab_role RENAME TO gone")

    lost = failure(session)
    ready = one.sidecar.readiness().ready
    one.sqlite.run("ALTER TABLE gone RENAME TO ab_role")

    assert ("database_not_migrated", True) == (lost.reason, ready)
    assert "unchanged" == run(session).result


def test_an_abandoned_cycle_starts_no_pass_and_shows_nothing(one: Sidecar) -> None:
    """What it has seen is older than what the next one may have shown meanwhile."""
    session = one.begin()
    run(session)
    one.add_role()
    fence = Fence()
    fence.revoke()

    with pytest.raises(CycleAbandoned):
        session.cycle(fence)

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
