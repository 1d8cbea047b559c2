"""
A connection to the metadata database: its errors, its lock, and what differs between
servers.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from select import select
from typing import Any

import sqlalchemy
from psycopg2 import extensions
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sync_perm.airflow_config import DRIVERS, OF_DATABASE, Address
from sync_perm.reasons import failure

Row = tuple[Any, ...]
Options = dict[str, Any]
"""The arguments of a driver."""

CONNECT_SECONDS = 10
# How long a server or network may be silent; and during a query, such as one that waits
# for a lock, PostgreSQL.
ANSWER_SECONDS = 30
QUERY_SECONDS = 25
# The server frees the lock of a lost node after this time without a query. It is longer
# than the limit for a query, so that a pass without a connection ends before another
# pass starts.
IDLE_SECONDS = 45

# Takes the lock of passes, or tells what the server knows of its holder; MySQL does not
# know since when. It is of the database and the schema, named or not. MySQL's locks are
# server-wide, and their names have at most 64 characters.
LOCKS = {
    "postgresql": """
SELECT CASE WHEN pg_try_advisory_xact_lock(hashtext('sync-perm'), number)
THEN '' ELSE COALESCE((
SELECT CONCAT(application_name, ' (', CONCAT_WS(', ', client_addr, 'backend ' || pid,
'since ' || DATE_TRUNC('second', xact_start)), ')') FROM pg_stat_activity
JOIN pg_locks USING (pid) WHERE datname = CURRENT_DATABASE() AND granted
AND classid = hashtext('sync-perm')::oid AND objid = number::oid
), 'another sync-perm') END
FROM (SELECT hashtext(COALESCE(NULLIF(:place, ''), CURRENT_SCHEMA(), '')) AS number) p""",
    "mysql": """
SELECT CASE WHEN GET_LOCK(place, 0) THEN '' ELSE CONCAT('another sync-perm', COALESCE((
SELECT CONCAT(' (', host, ', connection ', id, ')')
FROM information_schema.processlist WHERE id = IS_USED_LOCK(place)
), '')) END
FROM (SELECT SHA2(CONCAT('sync-perm/', DATABASE(), '/', :place), 256) AS place) p""",
}

END_HOLDER = (
    "end that session in the database: SELECT pg_terminate_backend(…) with the number of the "
    "backend; in MySQL: KILL with that of the connection"
)

# What PyMySQL takes as Airflow's driver does.
OF_MYSQL = (
    *("user", "password", "passwd", "host", "port", "unix_socket", "init_command"),
    *OF_DATABASE,
)
# The codes of errors, and what libpq, PostgreSQL and PgBouncer say in connection
# errors, which have none:
# https://www.postgresql.org/docs/current/errcodes-appendix.html,
# https://dev.mysql.com/doc/mysql-errors/8.4/en/
PATTERNS: Mapping[str, str] = {
    "database_not_migrated": r"^(42P01|42703|3F000|1146|1054)$",
    "database_missing": r'^(3D000|1049)$|database "" does not exist|no such database',
    "database_denied": r"^(28|1044$|1045$|1698$)|authentication (failed|method)|pg_hba\.conf|"
    r'role "" does not exist|no password supplied|no such user|not permitted to log in|'
    "permission denied for database",
    "database_read_denied": r"^(42501|1142|1143)$",
    # By the server, innodb_read_only (two codes), or transaction_read_only.
    "database_read_only": r"^(25006|1290|1874|1836|1792)$",
    # Gone, lost, shutdown, killed, idle for too long; 0: PyMySQL's for a closed one.
    # With TLS, a break mentions SSL.
    "database_lost": r"^(0$|08|57P|25P03|2006$|2013$|1053$|1927$|4031$)|terminating connection|"
    r"closed the connection|has been closed|could not (receive|send) data|connection reset|"
    r"ssl syscall|unexpected eof",
    "database_tls_failed": r"^(2026|3159)$|(?<!response to )ssl|certificate|tls",
    "database_unreachable": r"^(2002|2003)$|could not (translate|connect)|name resolution|refused|"
    r"tim(eout|ed out)|no route|unreachable|no such file|starting up|shutting down|recovery",
}


class Database:
    """
    One connection, which may also hold the lock of passes.

    The lock is in the database itself. If this process dies, the server sees the
    connection end and releases it. If the whole node dies, the server ends the
    connection after `idle_seconds` without a query.

    Args:
        query_seconds: How long PostgreSQL may take for a query.

    Raises:
        SidecarError: The connection failed; the reason is the cause.
    """

    def __init__(
        self,
        address: Address,
        query_seconds: int = QUERY_SECONDS,
        fence: Fence | None = None,
    ) -> None:
        self.address = address
        self.fence = fence or Fence()
        """Of the cycle that asks; it is told what it waits for."""
        self.is_mysql = address.dialect == "mysql"
        self._connection: sqlalchemy.Connection | None = None
        with self._explained("connect"):
            driver = DRIVERS[address.dialect]
            options = _of_mysql if self.is_mysql else _of_postgresql

            def create() -> Any:
                # which tries each of several hosts, and limits its time, only without it
                extensions.set_wait_callback(None)
                made = import_module(driver).connect(**options(address.arguments))
                extensions.set_wait_callback(_wait)
                return made

            engine = sqlalchemy.create_engine(
                f"{address.dialect}+{driver}://",
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",
                creator=create,
            )
            self._connection = engine.connect()
        quote = engine.dialect.identifier_preparer.quote
        # In the message of each query, and for it alone, so that PgBouncer's other
        # clients, which use the same connections in transaction mode, have none.
        # PyMySQL has its own limit.
        self._limit = (
            ""
            if self.is_mysql
            else f"SET LOCAL statement_timeout = '{query_seconds}s'; "
        )
        # What queries write in braces: where the tables are, and the type that holds
        # any text.
        self._words = {
            "in": f"{quote(address.schema)}." if address.schema else "",
            "text": "CHAR" if self.is_mysql else "TEXT",
        }

    def close(self) -> None:
        """
        Close the connection; ignore errors if it is already broken.
        """
        if self._connection is not None:
            with suppress(SQLAlchemyError, OSError):
                # without a rollback, which a hanging server delays
                self._connection.invalidate()
                self._connection.close()

    def rows(self, query: str, **values: object) -> list[Row]:
        """
        Return all rows of a query, with ``:name`` for parameters, of which drivers
        write a tuple in parentheses, and ``{in}`` before tables.

        Raises:
            SidecarError: The query or the connection failed.
        """
        query = query.format_map(self._words)
        with self._explained("answer"):
            assert self._connection is not None
            found = self._connection.execute(
                sqlalchemy.text(self._limit + query), values
            )
            return [tuple(row) for row in found] if found.returns_rows else []

    def take_lock(self, idle_seconds: int = IDLE_SECONDS) -> str:
        """
        Take the lock, and hold it until :meth:`close`, which is due without it, too;
        return who else holds it, and an empty text if we do.

        PostgreSQL's is of a transaction, so that PgBouncer reserves the server
        connection until its end.

        Raises:
            SidecarError: The database failed.
        """
        limit = f"SET SESSION wait_timeout = {idle_seconds:d}"
        if not self.is_mysql:
            self.rows("BEGIN")
            limit = f"SET LOCAL idle_in_transaction_session_timeout = '{idle_seconds}s'"
        self.rows(limit)
        address = self.address
        ((holder,),) = self.rows(LOCKS[address.dialect], place=address.schema)
        return str(holder)

    def check_lock(self) -> None:
        """
        Check with the server that we still hold the lock; the connection is not idle
        then.

        Raises:
            SidecarError: The connection was lost, and with it the lock (``lock_lost``).
        """
        try:
            self.rows("SELECT 1")
        except SidecarError as error:
            raise failure(
                "lock_lost",
                "the connection that held the lock broke, so the pass was stopped: "
                f"{error}",
            ) from None

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """
        Tell what is asked of the server, and convert the drivers' errors into failures
        with a reason.
        """
        try:
            with self.fence.waiting(f"{self.address} to {doing}"):
                yield
        except (SQLAlchemyError, OSError, ValueError) as error:
            cause: BaseException = getattr(error, "orig", None) or error
            reason = _reason_of(cause)
            if reason == "database_lost" and self._connection is None:
                reason = "database_unreachable"
            lines = str(cause.args[-1] if cause.args else cause).splitlines()
            said = ". ".join(" ".join(line.split()) for line in lines if line.strip())
            raise failure(
                reason, f"{self.address}: {self.address.redact(said)}"
            ) from None


def _wait(connection: Any) -> None:
    """
    Wait for PostgreSQL: psycopg2 itself waits as long as TCP lives, and so forever for
    a server that is frozen.

    Raises:
        TimeoutError: It was silent for too long; psycopg2 closes the connection.
    """
    while state := connection.poll():
        if not any(
            select(
                [connection],
                [connection] if state == extensions.POLL_WRITE else [],
                [],
                ANSWER_SECONDS,
            )
        ):
            raise TimeoutError(
                "timed out: the server is connected, and answers nothing"
            )


def _reason_of(error: BaseException) -> str:
    """
    Return the reason for an error of a driver; ``database_lost`` also for a failed
    connect.
    """
    # PyMySQL raises its own errors in place of the socket's. The end of a connection
    # with TLS says nothing about certificates or options.
    ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    is_tls = any(
        isinstance(one, ssl.SSLError) and not isinstance(one, ended)
        for one in (error, error.__context__)
    )
    if is_tls or isinstance(error, FileNotFoundError):  # of ssl_ca
        return "database_tls_failed"
    numbers = [str(one) for one in error.args[:1] if isinstance(one, int)]  # PyMySQL's
    # without names, such as ssl.example.com
    words = re.sub('"[^"]*"', '""', str(error).lower())
    said = getattr(error, "pgcode", None) or (numbers or [words])[0]
    return next(
        (reason for reason, pattern in PATTERNS.items() if re.search(pattern, said)),
        "database_failed",
    )


def _of_postgresql(given: Mapping[str, Any]) -> Options:
    """
    Return the arguments for psycopg2: ours, then Airflow's own.
    """
    return {
        "application_name": f"sync-perm@{socket.gethostname()}"[:63],
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": ANSWER_SECONDS * 1000,
        **given,
    }


def _of_mysql(given: Mapping[str, Any]) -> Options:
    """
    Return the arguments for PyMySQL: ours, and what it knows of those of Airflow's
    driver; but for the charset, because its own holds every name.
    """
    return {
        **{key: given[key] for key in OF_MYSQL if key in given},
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": ANSWER_SECONDS,
        "write_timeout": ANSWER_SECONDS,
        **mysql_tls(given),
    }


def mysql_tls(given: Mapping[str, Any]) -> Options:
    """
    Return PyMySQL's arguments for the TLS options of Airflow's driver; none: TLS where
    offered.

    Like that driver, ``ssl_ca`` without ``ssl_mode`` verifies the certificate, and
    ``ssl`` may be True, which requires TLS (since mysqlclient 2.2.4). PyMySQL verifies
    nothing by default.
    """
    said = {key.removeprefix("ssl_"): value for key, value in given.items()}
    said |= {"mode": "REQUIRED"} if given.get("ssl") is True else given.get("ssl") or {}
    tls: Options = {key: said[key] for key in ("ca", "cert", "key") if key in said}
    mode = str(said.get("mode", "VERIFY_CA" if "ca" in tls else "PREFERRED")).upper()

    def says(*names: str) -> bool:
        return any(str(said.get(one)).lower() in ("true", "1", "yes") for one in names)

    of_host = says("verify_identity", "check_hostname") or mode == "VERIFY_IDENTITY"
    verifies = of_host or mode == "VERIFY_CA" or says("verify_cert")
    if mode == "DISABLED" or (mode == "PREFERRED" and not tls and not verifies):
        return {"ssl_disabled": True} if mode == "DISABLED" else {}
    if verifies and "ca" not in tls:
        tls["capath"] = ssl.get_default_verify_paths().openssl_capath
    return {"ssl": {**tls, "check_hostname": of_host, "verify_mode": verifies}}
