"""
Real database servers on loopback: PostgreSQL, PgBouncer before it, MariaDB.

None of them runs as root: where the tests do, the servers belong to `nobody`.
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

from tests.support.program import own_port, start_server

USER = "airflow"
PASSWORD = "Pa55-of-the-suite"
SYSTEM_USER = "nobody"
MANY_CONNECTIONS = 200
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)

Row = tuple[Any, ...]
_numbers = itertools.count(1)


def find_program(name: str) -> str | None:
    """
    Return the path of a server program, which Debian often keeps off PATH.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin"])
    return shutil.which(name, path=path)


def find_mysql() -> str | None:
    """
    Return the path of MySQL's own server, which `MYSQLD_BIN` may name; MariaDB has one of the same
    name.
    """
    path = os.environ.get("MYSQLD_BIN") or find_program("mysqld")
    if path is None:
        return None
    said = subprocess.run([path, "--no-defaults", "--version"], capture_output=True, text=True)
    return None if "MariaDB" in said.stdout else path


def missing_programs(*names: str) -> str:
    """
    Say in one line which of these programs the machine lacks; empty when it has all.
    """
    missing = [name for name in names if find_program(name) is None]
    return f"needs {', '.join(missing)}: make setup-test as root" if missing else ""


def skip_without(*names: str) -> None:
    """
    Skip where the machine lacks one of these programs.
    """
    if missing := missing_programs(*names):
        pytest.skip(missing)


def skip_without_postgres() -> None:
    """
    Skip where the machine cannot run PostgreSQL.
    """
    skip_without("postgres", "initdb", "psql", "pg_dump")


class Server(ABC):
    """
    One server on a port of loopback; `stop` and `start` again is an outage with all data kept.

    Args:
        host: Its address.
    """

    scheme: str
    first_database: str
    """One that is always there."""
    end_signal = signal.SIGTERM
    """What ends it at once; the kernel sends it, too, when the tests are killed."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.folder = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))
        self.port = own_port(host)
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            shutil.chown(self.folder, SYSTEM_USER)

    @abstractmethod
    def command(self) -> list[str]:
        """
        The program and its arguments; it stays in the foreground.
        """

    @abstractmethod
    def connect(self, database: str, user: str = USER, password: str = PASSWORD) -> Any:
        """
        Return a DB-API connection in autocommit.
        """

    def start(self) -> None:
        """
        Start, and return when connections are answered.
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
        End the server and its connections at once; nothing happens when it is stopped already.
        """
        if self._process is not None:
            self.send_signal(self.end_signal)
            self._process.wait(30)
            self._process = None

    def send_signal(self, number: signal.Signals) -> None:
        """
        Send a signal to the main process.
        """
        assert self._process is not None
        os.kill(self._process.pid, number)

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
        The URL that Airflow takes.
        """
        login = f"{user}:{quote(password, safe='')}"
        return f"{self.scheme}://{login}@{self.host}:{self.port}/{database}"


@dataclass(frozen=True)
class Database:
    """
    One database of a server.
    """

    server: Server
    name: str

    @property
    def url(self) -> str:
        """
        The URL that Airflow takes.
        """
        return self.server.url(self.name)

    def query(self, sql: str, arguments: Iterable[Any] = ()) -> list[Row]:
        """
        Run one statement in a transaction of its own and return its rows, `[]` without any.

        Args:
            sql: With `%s` for arguments; without arguments, `%` stands for itself.
        """
        with contextlib.closing(self.server.connect(self.name)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql, tuple(arguments) or None)
            return list(cursor.fetchall()) if cursor.description else []


class Postgres(Server):
    """
    PostgreSQL that fears no power cut; `USER` owns every database and may make more.

    Whoever reaches it may try the password.
    """

    scheme = "postgresql"
    first_database = "postgres"
    end_signal = signal.SIGINT

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        subprocess.run(
            [
                *(str(find_program("initdb")), "--pgdata", str(self.folder / "data")),
                *("--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256"),
                *("--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **_as_other_user(),
        )
        with (self.folder / "data/pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")

    def command(self) -> list[str]:
        """
        The program and its arguments; it stays in the foreground.
        """
        options = {
            "listen_addresses": self.host,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": str(MANY_CONNECTIONS),
            "log_statement": "none",
        }
        given = [f"--{name}={value}" for name, value in options.items()]
        return [
            *(str(find_program("postgres")), "-D", str(self.folder / "data")),
            *("-p", str(self.port), *given),
        ]

    def connect(self, database: str, user: str = USER, password: str = PASSWORD) -> Any:
        """
        Return a DB-API connection in autocommit.
        """
        connection = psycopg2.connect(
            host=self.host, port=self.port, dbname=database, user=user, password=password
        )
        connection.autocommit = True
        return connection

    def new_database(self, template: str = "template0") -> Database:
        """
        Make a database with a name that no other test has, as a copy of another one.
        """
        name = f"airflow_{next(_numbers)}"
        Database(self, "postgres").query(f"CREATE DATABASE {name} TEMPLATE {template}")
        return Database(self, name)

    def drop(self, database: Database) -> None:
        """
        Drop a database, whoever is connected to it.
        """
        Database(self, "postgres").query(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")


class PgBouncer(Server):
    """
    PgBouncer in transaction mode, as the official chart has it; knows every database of a server.
    """

    scheme = "postgresql"
    first_database = "postgres"

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
        """
        The program and its arguments; it stays in the foreground.
        """
        return [str(find_program("pgbouncer")), "--quiet", str(self.folder / "pgbouncer.ini")]

    def connect(self, database: str, user: str = USER, password: str = PASSWORD) -> Any:
        """
        Return a DB-API connection in autocommit.
        """
        return Postgres.connect(self, database, user, password)  # type: ignore[arg-type]


class MariaDb(Server):
    """
    MariaDB; `USER` may do everything.
    """

    scheme = "mysql+pymysql"
    first_database = "mysql"
    login = ""
    """How users are let in: what follows IDENTIFIED."""

    def __init__(self) -> None:
        super().__init__()
        subprocess.run(
            self.install_command(),
            check=True,
            capture_output=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin:/usr/sbin", "TMPDIR": str(self.folder)},
            **_as_other_user(),
        )
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED {self.login} BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        )

    def install_command(self) -> list[str]:
        """
        What makes the folder of the data.
        """
        return [
            *(str(find_program("mariadb-install-db")), "--no-defaults", "--skip-name-resolve"),
            *(f"--datadir={self.folder}/data", "--auth-root-authentication-method=normal"),
            "--skip-test-db",
        ]

    def command(self) -> list[str]:
        """
        The program and its arguments; it stays in the foreground.
        """
        return [
            *(str(find_program("mariadbd")), "--no-defaults", f"--datadir={self.folder}/data"),
            *self.options(),
        ]

    def options(self) -> list[str]:
        """
        What both servers of this name take.
        """
        return [
            *("--bind-address=127.0.0.1", f"--port={self.port}", "--skip-name-resolve"),
            *(f"--socket={self.folder}/socket", f"--init-file={self.folder}/init.sql"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"),
            *(f"--tmpdir={self.folder}", "--character-set-server=utf8mb4"),
            "--explicit-defaults-for-timestamp=1",
        ]

    def connect(self, database: str, user: str = USER, password: str = PASSWORD) -> Any:
        """
        Return a DB-API connection in autocommit.
        """
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            database=database,
            user=user,
            password=password,
            autocommit=True,
        )

    def new_database(self, collation: str = "utf8mb4_general_ci") -> Database:
        """
        Make an empty database with a name that no other test has.
        """
        name = f"airflow_{next(_numbers)}"
        Database(self, "mysql").query(f"CREATE DATABASE {name} COLLATE {collation}")
        return Database(self, name)

    def copy(self, database: Database, name: str = "") -> Database:
        """
        Copy a database that others are connected to, without its foreign keys.

        Args:
            name: Of the copy; empty for one that no other test has.
        """
        name = name or f"airflow_{next(_numbers)}"
        tables = [table for (table,) in database.query("SHOW TABLES")]
        with contextlib.closing(self.connect(database.name)) as connection:
            cursor = connection.cursor()
            cursor.execute(f"CREATE DATABASE {name} COLLATE utf8mb4_general_ci")
            for table in tables:
                cursor.execute(f"CREATE TABLE {name}.`{table}` LIKE `{table}`")
                cursor.execute(f"INSERT INTO {name}.`{table}` SELECT * FROM `{table}`")
        return Database(self, name)


class MySql(MariaDb):
    """
    MySQL itself, 8 or later, with the login and the certificates that it makes by default.
    """

    login = "WITH caching_sha2_password"

    def install_command(self) -> list[str]:
        """
        What makes the folder of the data.
        """
        return [
            *(str(find_mysql()), "--no-defaults", "--initialize-insecure"),
            f"--datadir={self.folder}/data",
        ]

    def command(self) -> list[str]:
        """
        The program and its arguments; it stays in the foreground.
        """
        return [
            *(str(find_mysql()), "--no-defaults", f"--datadir={self.folder}/data"),
            *(*self.options(), "--mysqlx=OFF", "--skip-log-bin", "--secure-file-priv=NULL"),
        ]

    @property
    def certificate(self) -> Path:
        """
        The authority of its certificate.
        """
        return self.folder / "data/ca.pem"


def run_server(server: Server) -> Iterator[Any]:
    """
    The body of a fixture: the server while the tests run.
    """
    with server:
        yield server


def _as_other_user() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    return {"user": SYSTEM_USER, "group": "nogroup", "extra_groups": []}
