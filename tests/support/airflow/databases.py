"""
Real database servers on loopback: PostgreSQL, PgBouncer in front of it, MariaDB, MySQL.

None of them runs as root: if the tests do, the servers run as `nobody`.
"""

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg2
import pymysql
import pytest

from tests import Facts
from tests.support.program import Program, own_port, start_server

USER = "airflow"
PASSWORD = "Pa55-of-the-suite"
SYSTEM_USER = "nobody"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)

Row = tuple[Any, ...]
_numbers = itertools.count(1)


def find_program(name: str) -> str:
    """
    Return the path of a server program, also outside of PATH, where Debian installs
    many; empty if it is missing.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join(
        [*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin"]
    )
    return shutil.which(name, path=path) or ""


def missing_programs(*names: str) -> str:
    """
    Return the reason to skip, which lists the missing programs; empty if none is
    missing.
    """
    missing = [name for name in names if not find_program(name)]
    return f"needs {', '.join(missing)}: make setup-test as root" if missing else ""


def skip_without(*names: str) -> None:
    """
    Skip if one of these programs is missing.
    """
    if missing := missing_programs(*names):
        pytest.skip(missing)


def skip_without_postgres() -> None:
    """
    Skip if the machine cannot run PostgreSQL.
    """
    skip_without("postgres", "initdb", "psql", "pg_dump")


class Server(Program, ABC):
    """
    A server on a loopback port; `stop` followed by `start` is an outage that keeps all
    data.
    """

    scheme: str
    first_database: str
    """The name of a database that always exists."""
    end_signal = signal.SIGTERM
    """
    Ends the server immediately; the kernel also sends it when the tests are killed.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.folder = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))
        self.port = own_port(host)
        if os.getuid() == 0:
            shutil.chown(self.folder, SYSTEM_USER)

    @abstractmethod
    def command(self) -> list[str]:
        """
        Return the command that runs the server in the foreground.
        """

    @abstractmethod
    def connect(self, database: str) -> Any:
        """
        Return a DB-API connection in autocommit mode.
        """

    def start(self) -> None:
        """
        Start the server, and wait until it accepts connections.
        """
        self._process = start_server(
            self.command(),
            self.folder / "log",
            self._answers,
            preexec_fn=lambda: _LIBC.prctl(PR_SET_PDEATHSIG, self.end_signal),
            **_as_other_user(),
        )

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg2.OperationalError, pymysql.OperationalError):
            self.connect(self.first_database).close()
            return True
        return False

    def stop(self) -> None:
        """
        End the server and its connections immediately, unless it is already stopped.
        """
        if self._process:
            self._process.send_signal(self.end_signal)
            self._process.wait(30)
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        """
        Return the URL in Airflow's format.
        """
        login = f"{user}:{quote(password, safe='')}"
        return f"{self.scheme}://{login}@{self.host}:{self.port}/{database}"


@dataclass(frozen=True)
class Database:
    """
    A database of a server.
    """

    server: Server
    name: str

    @property
    def url(self) -> str:
        """
        The URL in Airflow's format.
        """
        return self.server.url(self.name)

    def query(self, sql: str, arguments: Iterable[Any] = ()) -> list[Row]:
        """
        Run a statement in its own transaction and return its rows, `[]` if it has none.

        Args:
            sql: With `%s` for arguments; without arguments, `%` is a literal.
        """
        with contextlib.closing(self.server.connect(self.name)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql, tuple(arguments) or None)
            return list(cursor.fetchall()) if cursor.description else []


class PostgresProtocol(Server):
    """
    A server for PostgreSQL's clients.
    """

    scheme = "postgresql"
    first_database = "postgres"

    def connect(self, database: str) -> Any:
        connection = psycopg2.connect(
            host=self.host,
            port=self.port,
            dbname=database,
            user=USER,
            password=PASSWORD,
        )
        connection.autocommit = True
        return connection


class Postgres(PostgresProtocol):
    """
    PostgreSQL without protection against power cuts; `USER` owns every database.

    Clients from any address can log in with the password.
    """

    end_signal = signal.SIGINT

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        subprocess.run(
            [
                find_program("initdb"),
                f"--pgdata={self.folder}/data",
                f"--username={USER}",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **_as_other_user(),
        )
        with (self.folder / "data/pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")

    def command(self) -> list[str]:
        options = {
            "listen_addresses": self.host,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": "200",
        }
        return [
            find_program("postgres"),
            f"-D{self.folder}/data",
            f"-p{self.port}",
            *[f"--{name}={value}" for name, value in options.items()],
        ]

    def new_database(self, template: str = "template0") -> Database:
        """
        Create a database with a unique name, as a copy of a template.
        """
        name = f"airflow_{next(_numbers)}"
        Database(self, "postgres").query(f"CREATE DATABASE {name} TEMPLATE {template}")
        return Database(self, name)

    def drop(self, database: Database) -> None:
        """
        Drop a database, even if clients are connected to it.
        """
        Database(self, "postgres").query(
            f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)"
        )


class PgBouncer(PostgresProtocol):
    """
    PgBouncer in transaction mode, as in the official chart; serves all databases of a
    server.
    """

    def __init__(self, postgres: Postgres) -> None:
        super().__init__()
        self.postgres = postgres
        (self.folder / "users.txt").write_text(f'"{USER}" "{PASSWORD}"\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={postgres.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = scram-sha-256
            auth_file = {self.folder}/users.txt
            pool_mode = transaction
            default_pool_size = 10
            max_client_conn = 100
            """.replace("            ", "")
        )

    def command(self) -> list[str]:
        return [find_program("pgbouncer"), "--quiet", f"{self.folder}/pgbouncer.ini"]


class MariaDb(Server):
    """
    MariaDB; `USER` has all privileges.
    """

    scheme = "mysql+pymysql"
    first_database = "mysql"

    collation = "utf8mb4_general_ci"
    program = "mariadbd"
    options: tuple[str, ...] = ("--explicit-defaults-for-timestamp=1",)
    installs: tuple[str, ...] = (
        "mariadb-install-db",
        "--no-defaults",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
        "--skip-name-resolve",
    )

    def __init__(self) -> None:
        super().__init__()
        program, *options = self.installs
        subprocess.run(
            [find_program(program), *options, f"--datadir={self.folder}/data"],
            check=True,
            capture_output=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin:/usr/sbin", "TMPDIR": str(self.folder)},
            **_as_other_user(),
        )
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        return [
            find_program(self.program),
            "--no-defaults",
            f"--datadir={self.folder}/data",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            f"--socket={self.folder}/socket",
            f"--init-file={self.folder}/init.sql",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            f"--tmpdir={self.folder}",
            "--character-set-server=utf8mb4",
            *self.options,
        ]

    def connect(self, database: str) -> Any:
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            database=database,
            user=USER,
            password=PASSWORD,
            autocommit=True,
        )

    def new_database(self, collation: str = "") -> Database:
        """
        Create an empty database with a unique name.
        """
        name = f"airflow_{next(_numbers)}"
        Database(self, "mysql").query(
            f"CREATE DATABASE {name} COLLATE {collation or self.collation}"
        )
        return Database(self, name)

    def copy(self, database: Database, name: str = "") -> Database:
        """
        Copy a database, without its foreign keys, while other processes are connected
        to it.

        Args:
            name: The name of the copy; empty for a unique one.
        """
        name = name or f"airflow_{next(_numbers)}"
        with contextlib.closing(self.connect(database.name)) as connection:
            cursor = connection.cursor()
            cursor.execute(f"CREATE DATABASE {name} COLLATE {self.collation}")
            for table in [table for (table,) in database.query("SHOW TABLES")]:
                cursor.execute(f"CREATE TABLE {name}.`{table}` LIKE `{table}`")
                cursor.execute(f"INSERT INTO {name}.`{table}` SELECT * FROM `{table}`")
        return Database(self, name)


class MySql(MariaDb):
    """
    MySQL 8 or later, with its default collation.
    """

    collation = "utf8mb4_0900_ai_ci"
    program = "mysqld"
    options = ("--mysqlx=OFF", "--secure-file-priv=NULL")
    installs = ("mysqld", "--no-defaults", "--initialize-insecure")


def skip_without_mysql() -> None:
    """
    Skip if `mysqld` is missing, or MariaDB's.
    """
    path = find_program(MySql.program)
    if not path or Path(path).resolve().name == MariaDb.program:
        pytest.skip("needs MySQL's own mysqld on PATH, which Debian does not have")


def run_server(server: Server) -> Iterator[Any]:
    """
    Implement a fixture that runs a server during the tests.
    """
    with server:
        yield server


def _as_other_user() -> Facts:
    if os.getuid() != 0:
        return {}
    return {"user": SYSTEM_USER, "group": "nogroup", "extra_groups": []}
