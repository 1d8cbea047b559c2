"""Database failures: each has its own reason, and sync-perm recovers on its own."""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sidecar_runtime.errors import SidecarError
from sync_perm.airflow_config import parse_url
from sync_perm.database import Database as Connection
from sync_perm.tables import try_write
from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.scenarios.sync_perm.standin import (
    WEBSITE,
    StandIn,
    is_synced,
    small,
    wait_until_synced,
)
from tests.support.airflow.databases import Database, Postgres, skip_without_postgres
from tests.support.airflow.permissions import add_role
from tests.support.airflow.sync_perm import (
    PASS_SECONDS,
    SyncPerm,
    run_command,
    signal_all,
)
from tests.support.program import own_port
from tests.support.raising import raised
from tests.support.replacing import replace
from tests.support.waiting import wait_until

# Enough for some retries of a supervisor that polls every half second.
SECONDS = 150.0


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    skip_without_postgres()
    with Postgres() as server:
        yield server


def assert_is_a_calm_failure(daemon: SyncPerm, reason: str) -> None:
    """
    Check for failures of one line with advice: no traceback, no pass, and healthz
    answers.
    """
    if daemon.events:
        daemon.sighup()  # instead of the wait for the retry
    failed = daemon.wait_for_event("cycle_failed", SECONDS, reason=reason)
    daemon.sighup()
    wait_until(
        lambda: len(daemon.find_events("cycle_failed", reason=reason)) >= 2,
        "again",
        SECONDS,
    )

    assert failed["advice"]
    assert len(failed["error"]) < 400
    assert "\n" not in failed["error"]
    assert [] == daemon.stray_lines
    assert [] == [event for event in daemon.events if "exception" in event]
    assert [] == daemon.find_events("pass_started")
    assert 200 == daemon.get("/healthz").status
    assert reason == daemon.get("/readyz").json()["reason"]
    assert daemon.sample("sidecar_failures_total", reason=reason) >= 1


def assert_recovers(daemon: SyncPerm) -> None:
    daemon.sighup()
    daemon.wait_until_good(SECONDS + PASS_SECONDS)
    wait_until(lambda: daemon.status()["reason"] is None, "no error any more", SECONDS)


def test_recovers_when_the_database_is_down_at_the_start_and_later(
    standin: StandIn, own_postgres: Postgres, begin: StartSyncPerm, tmp_path: Path
) -> None:
    database = small(own_postgres)
    own_postgres.stop()
    bind = {"SYNC_PERM_HTTP_BIND": f"127.0.0.1:{own_port('127.0.0.1')}"}

    daemon = begin(database, bind)

    assert_is_a_calm_failure(daemon, "database_unreachable")
    assert 503 == daemon.get("/readyz").status
    checked = run_command("check", standin, database.url, tmp_path, bind)
    assert 3 == checked.returncode
    assert "FAIL  connection     database_unreachable: " in checked.stdout
    assert "FAIL  daemon         database_unreachable: " in checked.stdout
    assert "Connection refused. Is the server running" in checked.stdout
    own_postgres.start()
    assert_recovers(daemon)
    own_postgres.stop()
    daemon.wait_for_event(
        "cycle_failed", SECONDS, after=len(daemon.events), reason="database_unreachable"
    )
    assert 200 == daemon.get("/readyz").status
    own_postgres.start()
    add_role(database, "team")
    wait_until_synced(database)


def test_a_demoted_primary_and_a_rotated_password_need_no_restart(
    own_postgres: Postgres, begin: StartSyncPerm, tmp_path: Path
) -> None:
    """
    The server ends all connections then; Airflow's own setting names a command for the
    URL.
    """
    database = small(own_postgres)
    address = tmp_path / "url"
    database.query("CREATE ROLE guest SUPERUSER LOGIN PASSWORD 'first-Pa55'")
    address.write_text(own_postgres.url(database.name, "guest", "first-Pa55"))
    daemon = begin(None, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": f"cat {address}"})
    daemon.wait_until_good(PASS_SECONDS)

    def disturb(*statements: str) -> int:
        for statement in statements:
            database.query(statement)
        seen = len(daemon.events)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        database.query(f"{end} WHERE usename = 'guest'")
        return seen

    seen = disturb("ALTER ROLE guest SET default_transaction_read_only = on")
    add_role(database, "team")
    daemon.wait_for_event("cycle_failed", SECONDS, seen, reason="database_read_only")
    disturb("ALTER ROLE guest RESET default_transaction_read_only")
    wait_until_synced(database)

    seen = disturb("ALTER ROLE guest PASSWORD 'second-Pa55'")
    daemon.wait_for_event("cycle_failed", SECONDS, seen, reason="database_denied")
    replace(address, own_postgres.url(database.name, "guest", "second-Pa55"))
    assert_recovers(daemon)
    assert "Pa55" not in daemon.log() + str(daemon.status())


def test_reports_a_missing_and_then_an_unmigrated_database_and_recovers(
    standin: StandIn, postgres: Postgres, begin: StartSyncPerm, tmp_path: Path
) -> None:
    database = small(postgres)
    database.query("ALTER SCHEMA public RENAME TO migrated")
    database.query("CREATE SCHEMA public")
    admin = Database(postgres, "postgres")
    admin.query(f"ALTER DATABASE {database.name} RENAME TO {database.name}_later")

    daemon = begin(database)

    assert_is_a_calm_failure(daemon, "database_missing")
    admin.query(f"ALTER DATABASE {database.name}_later RENAME TO {database.name}")
    assert_is_a_calm_failure(daemon, "database_not_migrated")
    checked = run_command(
        "check",
        standin,
        database.url,
        tmp_path,
        {"AIRFLOW__DATABASE__SQL_ALCHEMY_SCHEMA": "migrated"},
    )
    assert "ok    differences    0 rows" in checked.stdout
    assert [] == database.query(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    )
    database.query("ALTER SCHEMA public RENAME TO empty")
    database.query("ALTER SCHEMA migrated RENAME TO public")
    database.query("ALTER TABLE ab_role RENAME TO kept")
    database.query("CREATE VIEW ab_role AS SELECT id / 0 AS id, name FROM kept")
    assert_is_a_calm_failure(daemon, "database_failed")
    database.query("DROP VIEW ab_role")
    database.query("ALTER TABLE kept RENAME TO ab_role")
    assert_recovers(daemon)


def test_a_cycle_whose_query_waits_too_long_or_loses_its_connection_has_failed(
    postgres: Postgres, begin: StartSyncPerm
) -> None:
    database = small(postgres)
    with closing(postgres.connect(database.name)) as other:
        cursor = other.cursor()
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE ab_role")
        begin(database, {"SYNC_PERM_TIMEOUT": "1s"}).wait_for_event(
            "cycle_failed", SECONDS, reason="cycle_timeout"
        )
        lost = begin(database)

        def lose_it() -> object:
            database.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock'"
            )
            return lost.find_events("cycle_failed", reason="database_lost")

        wait_until(lose_it, "its connection is lost", SECONDS)
    assert_recovers(lost)


def test_a_database_that_answers_nothing_while_its_connection_lives_is_named(
    own_postgres: Postgres, begin: StartSyncPerm
) -> None:
    database = small(own_postgres)
    daemon = begin(database).until_good()
    query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'sync-perm%'"
    pids = [pid for (pid,) in database.query(query)]
    signal_all(pids, signal.SIGSTOP)
    try:
        slow = daemon.wait_for_event("cycle_slow", SECONDS)
        reason = daemon.get("/readyz").json()["error"]
        told = daemon.wait_for_event("cycle_failed", SECONDS)
        failed = daemon.get("/readyz").json()["reason"]

        assert slow["error"].endswith(f"/{database.name} to answer")
        assert slow["error"] == reason
        assert ("database_unreachable",) * 2 == (told["reason"], failed)
        assert "is connected, and answers nothing" in told["error"]
        assert_recovers(daemon)
    finally:  # a stopped server cannot end
        signal_all(pids, signal.SIGCONT)


def test_a_short_idle_timeout_of_the_server_is_no_failure(
    standin: StandIn, postgres: Postgres, begin: StartSyncPerm
) -> None:
    """The connection ends between two polls, and while a pass runs."""
    standin.site.write(f"import time\ntime.sleep(2)\n{WEBSITE}")
    database = small(postgres)
    database.query(f"ALTER DATABASE {database.name} SET idle_session_timeout = '1s'")
    daemon = begin(database, {"INTERVAL": "2"}).until_good()

    add_role(database, "team")
    daemon.wait_for_pass()
    polls = daemon.quiet_polls()
    wait_until(lambda: daemon.quiet_polls() >= polls + 2, "idle between polls", SECONDS)

    assert is_synced(database)
    assert 1.0 == daemon.sample("sync_perm_changed_entries_total")
    assert [] == daemon.find_events("cycle_failed")


def test_each_right_that_an_account_lacks_is_found_without_a_row_written(
    postgres: Postgres,
) -> None:
    database = small(postgres)
    role = f"lesser_{database.name}"
    database.query(f"CREATE ROLE {role}")
    for kind in ("TABLES", "SEQUENCES"):
        database.query(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}")
    with closing(Connection(parse_url("TEST", database.url))) as connection:
        connection.rows(f"SET ROLE {role}")
        try_write(connection)
        for right in ("INSERT", "UPDATE", "DELETE"):
            database.query(f"REVOKE {right} ON ab_view_menu FROM {role}")
            failed = raised(SidecarError, try_write, connection)
            database.query(f"GRANT {right} ON ab_view_menu TO {role}")

            assert "database_read_only" == failed.reason
            assert "permission denied for table ab_view_menu" in failed.message


def test_reports_missing_tls_a_wrong_password_and_then_missing_rights(
    standin: StandIn, postgres: Postgres, begin: StartSyncPerm, tmp_path: Path
) -> None:
    database = small(postgres)
    given = "an0ther-Secret"
    database.query("DROP ROLE IF EXISTS guest")
    database.query("CREATE ROLE guest LOGIN PASSWORD 'guest-Pa55'")
    database.query(f"REVOKE CONNECT ON DATABASE {database.name} FROM PUBLIC")
    url = postgres.url(database.name, "guest", given)

    daemon = begin(None, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url})
    without_tls = begin(
        None, {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"{url}?sslmode=require"}
    )

    assert_is_a_calm_failure(without_tls, "database_tls_failed")
    assert_is_a_calm_failure(daemon, "database_denied")
    assert given not in daemon.log() + str(daemon.status())
    database.query(f"ALTER USER guest PASSWORD '{given}'")
    daemon.wait_for(lambda: "CONNECT" in str(daemon.status()), "it may not connect")
    assert_is_a_calm_failure(daemon, "database_denied")
    database.query(f"GRANT CONNECT ON DATABASE {database.name} TO guest")
    assert_is_a_calm_failure(daemon, "database_read_denied")
    database.query("GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO guest")
    assert_is_a_calm_failure(daemon, "database_read_only")  # it may not insert
    checked = run_command("check", standin, url, tmp_path)
    assert 3 == checked.returncode, checked.stdout
    assert "FAIL  tables         database_read_only: " in checked.stdout
    database.query("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")
    seen = len(daemon.events)
    daemon.sighup()
    while (
        "sequence" not in daemon.wait_for_event("cycle_failed", SECONDS, seen)["error"]
    ):
        seen = len(daemon.events)
    database.query("GRANT UPDATE ON ALL SEQUENCES IN SCHEMA public TO guest")
    assert_recovers(daemon)
