"""Rotating passwords, like IAM tokens every 15 minutes: each pass logs in with the newest."""

from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.sync_perm.conftest import StartSyncPerm
from tests.support.airflow.databases import Database, MySql, Postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import add_role, grants_on
from tests.support.airflow.sync_perm import SyncPerm

CONN_CMD = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD"


class Tokens:
    """Logins that are valid for one rotation; a command prints the newest from a file."""

    def __init__(self, database: Database, folder: Path, options: str = "") -> None:
        self._database = database
        self._file = folder / "token"
        self._options = options
        self._number = 0
        self.command = f"cat {self._file}"
        self.rotate()

    def rotate(self) -> None:
        """Create a new token, and print it from now on."""
        self._number += 1
        user, password = f"iam_{self._number}", f"Token-{self._number}-of-the-suite"
        if isinstance(self._database.server, Postgres):
            self._database.query(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")
        else:
            login = f"IDENTIFIED WITH caching_sha2_password BY '{password}' REQUIRE SSL"
            self._database.query(f"CREATE USER '{user}'@'%' {login}")
            self._database.query(f"GRANT ALL ON *.* TO '{user}'@'%'")
        url = self._database.server.url(self._database.name, user, password)
        new = self._file.with_suffix(".new")
        new.write_text(f"{url}{self._options}\n")
        new.rename(self._file)

    def refuse_the_old(self) -> None:
        """Refuse logins with the previous token; as with IAM, open connections stay open."""
        old = f"iam_{self._number - 1}"
        if isinstance(self._database.server, Postgres):
            self._database.query(f"ALTER ROLE {old} NOLOGIN")
        else:
            self._database.query(f"ALTER USER '{old}'@'%' ACCOUNT LOCK")


def assert_no_pass_fails(
    daemon: SyncPerm, database: Database, tokens: Tokens, rotations: int
) -> None:
    daemon.wait_until_good()
    for number in range(rotations):
        tokens.rotate()
        tokens.refuse_the_old()
        seen = len(daemon.events)
        add_role(database, f"team {number}")
        daemon.wait_for_pass(seen)  # to its end, because Airflow connects more than once

        assert (f"team {number}", "can_read") in grants_on(database, "Website")
    passes = [event["result"] for event in daemon.find_events("pass_finished")]
    assert {"success"} == set(passes)
    assert len(passes) >= rotations
    assert [] == daemon.find_events("cycle_failed")
    assert [] == daemon.find_events("rows_undone")


@pytest.mark.usefixtures("only_in_full")
def test_no_pass_fails_while_postgresql_passwords_rotate(
    airflow: Airflow, database: Database, tmp_path: Path, start: StartSyncPerm, counts: Counts
) -> None:
    tokens = Tokens(database, tmp_path)
    daemon = start(None, {CONN_CMD: tokens.command})

    assert_no_pass_fails(daemon, database, tokens, counts.credential_rotations)


@pytest.mark.usefixtures("only_in_full")
def test_no_pass_fails_while_mysql_passwords_rotate_over_tls(
    airflow: Airflow,
    mysql: MySql,
    home: Path,
    tmp_path: Path,
    start: StartSyncPerm,
    counts: Counts,
) -> None:
    database = airflow.new_mysql(mysql, home)
    # MySQL's own certificate names no host, and PyMySQL checks the name if it has an authority.
    options = f"?ssl_ca={mysql.certificate}&ssl_check_hostname=false"
    tokens = Tokens(database, tmp_path, options)
    daemon = start(None, {CONN_CMD: tokens.command})

    assert_no_pass_fails(daemon, database, tokens, counts.credential_rotations)
