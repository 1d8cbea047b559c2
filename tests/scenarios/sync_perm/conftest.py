"""
Fixtures for the sync-perm scenarios: real Airflow, real databases, and supervisors.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import Given, Texts
from tests.scenarios.sync_perm.standin import StandIn, small
from tests.support.airflow.databases import (
    PASSWORD,
    Database,
    MariaDb,
    MySql,
    PgBouncer,
    Postgres,
    run_server,
    skip_without,
    skip_without_mysql,
    skip_without_postgres,
)
from tests.support.airflow.installed import Airflow, Kind, Version
from tests.support.airflow.permissions import add_role
from tests.support.airflow.sync_perm import SyncPerm

Test = TypeVar("Test", bound=Callable[..., Any])

# The first test installs Airflow, which takes minutes; every wait in a test has its own
# limit.
INSTALLS = pytest.mark.timeout(1_800)
SUPPORTED: tuple[Version, ...] = ("2.11", "3.2", "3")


def on_airflow(*versions: Version) -> Callable[[Test], Test]:
    """
    Run a test on these versions with `--full`; without it on 2.11, if that is one of
    them.
    """

    def mark(test: Test) -> Test:
        test.versions = versions  # type: ignore[attr-defined]
        return test

    return mark


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Parametrize each test with its versions of Airflow; without `--full` only 2.11.
    """
    if "airflow" in metafunc.fixturenames and "kind" not in metafunc.fixturenames:
        versions = getattr(metafunc.function, "versions", ("2.11",))
        marks = [INSTALLS]
        if not metafunc.config.getoption("--full"):
            if "2.11" not in versions:
                marks.append(
                    pytest.mark.skip(
                        reason="other versions of Airflow run with make test-full"
                    )
                )
            versions = ("2.11",)
        params = [pytest.param(version, marks=marks) for version in versions]
        metafunc.parametrize("airflow", params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def airflow(request: pytest.FixtureRequest) -> Airflow:
    """An Airflow of the version that `on_airflow` selects."""
    return Airflow.install_or_skip(request.param)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole run; a test that stops its server uses its own."""
    skip_without_postgres()
    yield from run_server(Postgres())


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode in front of that PostgreSQL."""
    skip_without("pgbouncer")
    yield from run_server(PgBouncer(postgres))


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """One MariaDB for the whole run."""
    skip_without("mariadbd", "mariadb-install-db", "my_print_defaults")
    yield from run_server(MariaDb())


@pytest.fixture(scope="session")
def mysql() -> Iterator[MySql]:
    """One MySQL for the whole run."""
    skip_without_mysql()
    yield from run_server(MySql())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """HOME of Airflow's own processes; it contains AIRFLOW_HOME."""
    return tmp_path / "home"


@pytest.fixture
def database(airflow: Airflow, postgres: Postgres, home: Path) -> Iterator[Database]:
    """A PostgreSQL metadata database in which `airflow sync-perm` has run."""
    made = airflow.new_postgres(postgres, home)
    yield made
    postgres.drop(made)


@pytest.fixture
def metadata(
    request: pytest.FixtureRequest,
    airflow: Airflow,
    kind: Kind,
    home: Path,
) -> Database:
    """A metadata database of that kind in which `airflow sync-perm` has run."""
    made: Database
    if kind == "postgres":
        made = request.getfixturevalue("database")
    else:
        made = airflow.new_mysql(request.getfixturevalue(kind), home)
    return made


StartSyncPerm = Callable[..., SyncPerm]
"""Starts a supervisor; receives a database and optional settings."""


@pytest.fixture
def start(airflow: Airflow, tmp_path: Path) -> Iterator[StartSyncPerm]:
    """A function that starts supervisors beside a real Airflow."""
    yield from starting(airflow, tmp_path)


@pytest.fixture
def standin(tmp_path: Path) -> StandIn:
    """The stand-in for Airflow."""
    return StandIn.make(tmp_path / "site")


@pytest.fixture
def unsynced(postgres: Postgres) -> Database:
    """A database in which a role lacks the permission that every role has."""
    database = small(postgres)
    add_role(database, "team")
    return database


@pytest.fixture
def begin(standin: StandIn, tmp_path: Path) -> Iterator[StartSyncPerm]:
    """A function that starts supervisors beside the stand-in."""
    yield from starting(standin, tmp_path)


def with_config(folder: Path, text: str) -> Texts:
    """Write a webserver_config.py, and return the settings that name it."""
    file = folder / "webserver_config.py"
    file.write_text(text)
    return {f"AIRFLOW__{one}__CONFIG_FILE": str(file) for one in ("FAB", "WEBSERVER")}


def starting(airflow: Airflow, folder: Path) -> Iterator[StartSyncPerm]:
    """
    Yield a start function; at the end, kill all, and check that no log has the
    password.
    """
    started: list[SyncPerm] = []

    def start_one(database: Database | None, settings: Given | None = None) -> SyncPerm:
        home = folder / f"supervisor{len(started)}"
        daemon = SyncPerm(airflow, database.url if database else None, home, settings)
        started.append(daemon)
        daemon.start()
        return daemon

    yield start_one
    for daemon in started:
        daemon.kill()
        assert PASSWORD not in daemon.log()
