"""
A real Airflow: its CLI, its metadata database, and the DAGs in that database.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import pytest

from tests import ROOT, Texts
from tests.support.airflow.databases import Database, MariaDb, Postgres, find_program

CLI_SECONDS = 1_800.0
WITHOUT_KUBERNETES = Path(__file__).with_name("without_kubernetes")
"""A PYTHONPATH for Airflow 2, which otherwise imports Kubernetes' client: 0.7 s of CPU."""

Version = Literal["2.11", "3.2", "3", "next"]
"""
A dependency group of pyproject.toml: `3.2` is what the chart installs, `3` the newest
release, `next` one to come.
"""
EVERY_VERSION: tuple[Version, ...] = get_args(Version)
Kind = Literal["postgres", "mariadb", "mysql"]
"""A kind of database; for a server also the name of its fixture."""
DATABASES: Mapping[Version, tuple[Kind, ...]] = {
    "2.11": ("postgres", "mariadb", "mysql"),
    "3.2": ("postgres",),
    "3": ("postgres",),
    "next": ("postgres",),
}
"""The Airflow versions and databases with which sync-perm is compared."""
AccessControl = Mapping[str, Any] | None
State = Literal["migrated", "synced"]


class AirflowIsMissing(Exception):
    """
    This Airflow cannot be installed on this machine; the message is one line.
    """


@dataclass(frozen=True)
class Airflow:
    """
    An installed Airflow.
    """

    version: Version
    folder: Path

    @classmethod
    def install(cls, version: Version) -> Self:
        """
        Return the environment of a version; create it if it does not exist.

        Raises:
            AirflowIsMissing: The machine has no Python that this version supports.
        """
        done = subprocess.run(
            [ROOT / "scripts" / "airflow-environment", version],
            capture_output=True,
            text=True,
        )
        if done.returncode == 3:
            raise AirflowIsMissing(done.stderr.strip())
        assert done.returncode == 0, done.stderr
        return cls(version, Path(done.stdout.strip()))

    @classmethod
    def install_or_skip(cls, version: Version) -> Self:
        """
        Call :meth:`install`; skip the test, or all tests of the fixture, if Airflow is
        missing.
        """
        try:
            return cls.install(version)
        except AirflowIsMissing as missing:
            pytest.skip(str(missing))

    @property
    def is_3(self) -> bool:
        return not self.version.startswith("2.")

    @property
    def bin(self) -> Path:
        """
        The folder with `airflow` and `python`.
        """
        return self.folder / "bin"

    def environment(self, url: str | None, home: Path) -> Texts:
        """
        Return the environment variables of an Airflow component.

        Args:
            url: The URL of the metadata database; `None` omits the variable.
            home: HOME; AIRFLOW_HOME is a folder in it.
        """
        variables = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(home),
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        if self.is_3:
            variables["AIRFLOW__CORE__AUTH_MANAGER"] = (
                "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
            )
        else:
            variables["PYTHONPATH"] = str(WITHOUT_KUBERNETES)
        if url:
            variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = url
        return variables

    def run(
        self,
        database: Database,
        home: Path,
        *arguments: str,
        given: str = "",
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a program of this environment, `airflow` or `python`, and wait until it
        ends.

        Args:
            given: Its standard input.
        """
        home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [self.bin / arguments[0], *arguments[1:]],
            env=self.environment(database.url, home),
            cwd=home,
            input=given,
            capture_output=True,
            text=True,
            timeout=CLI_SECONDS,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def full_sync(self, database: Database, home: Path) -> None:
        """
        Run `airflow sync-perm --include-dags`: the reference for every result.
        """
        self.run(database, home, "airflow", "sync-perm", "--include-dags")

    def write_dags(
        self,
        database: Database,
        home: Path,
        dags: Mapping[str, AccessControl],
        *,
        parsed: bool = False,
        places: Mapping[str, Sequence[str]] = {},
    ) -> None:
        """
        Write DAGs to the database as the DAG processor does.

        Args:
            dags: The access_control of each DAG; sets are passed as lists.
            parsed: Whether to write their permissions too, as a parse does.
            places: DAG → the path of its file below the DAG folder, and its tags.
        """
        given = json.dumps({"dags": dags, "parsed": parsed, "places": places})
        self.run(
            database,
            home,
            "python",
            "-P",
            str(Path(__file__).with_name("write_dags.py")),
            given=given,
        )

    def new_postgres(
        self, server: Postgres, home: Path, state: State = "synced"
    ) -> Database:
        """
        Create a PostgreSQL metadata database.

        Airflow creates a template of each state once, dumped into the environment's
        folder. Each server loads the dump; every database is a copy of the template.
        """
        template = f"template_{self.version.replace('.', '_')}_{state}"
        if (template,) not in Database(server, "postgres").query(
            "SELECT datname FROM pg_database"
        ):
            self._load_template(server, home, state, template)
        return server.new_database(template)

    def new_mysql(self, server: MariaDb, home: Path) -> Database:
        """
        Create a MariaDB metadata database, as a copy of one that Airflow created.
        """
        template = f"template_{self.version.replace('.', '_')}"
        made = Database(server, template)
        if (template,) not in Database(server, server.first_database).query(
            "SHOW DATABASES"
        ):
            made = server.new_database()
            self._initialize(made, home, "synced")
            server.copy(made, template)
        return server.copy(Database(server, template))

    def _load_template(
        self, server: Postgres, home: Path, state: State, template: str
    ) -> None:
        dump = self.folder / f"{state}.sql"
        if not dump.exists():
            made = server.new_database()
            self._initialize(made, home, state)
            partial = dump.with_suffix(f".{os.getpid()}")
            _dump(made, partial)
            partial.rename(dump)
            server.drop(made)
        loading = server.new_database()
        _load(loading, dump)
        Database(server, "postgres").query(
            f"ALTER DATABASE {loading.name} RENAME TO {template}"
        )

    def _initialize(self, database: Database, home: Path, state: State) -> None:
        self.run(database, home, "airflow", "db", "migrate")
        if state == "synced":
            self.run(database, home, "airflow", "sync-perm")


def copy_of(database: Database, folder: Path) -> Database:
    """
    Copy a database of any kind while other processes are connected to it.

    Args:
        folder: The folder for a temporary dump.
    """
    if isinstance(database.server, MariaDb):
        return database.server.copy(database)
    assert isinstance(database.server, Postgres)
    dump = folder / f"{database.name}.sql"
    _dump(database, dump)
    copy = database.server.new_database()
    _load(copy, dump)
    dump.unlink()
    return copy


def _dump(database: Database, path: Path) -> None:
    _tool("pg_dump", database, "--no-owner", f"--file={path}")


def _load(database: Database, path: Path) -> None:
    _tool(
        "psql",
        database,
        "--quiet",
        "--no-psqlrc",
        "--set=ON_ERROR_STOP=1",
        f"--file={path}",
    )


def _tool(name: str, database: Database, *arguments: str) -> None:
    subprocess.run(
        [find_program(name), f"--dbname={database.url}", *arguments],
        check=True,
        capture_output=True,
    )
