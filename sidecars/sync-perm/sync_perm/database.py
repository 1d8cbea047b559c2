"""
A connection to the metadata database: its errors, its lock, and what differs between servers.
"""

from __future__ import annotations

import hashlib
import re
import select
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
import sqlalchemy
from psycopg2 import extensions
from sqlalchemy import BigInteger, ClauseElement, Executable, cast, false, func, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from sidecar_runtime.errors import SidecarError
from sync_perm.connection import Address
from sync_perm.reasons import failure

Row = tuple[Any, ...]

CONNECT_SECONDS = 10
# The limit for one query: a server that never answers must not block a cycle.
ANSWER_SECONDS = 30.0
# A lost lock is noticed within this time; the checks also keep the connection from being idle.
CHECK_SECONDS = 1.0
# The server frees the lock of a lost node after this time without a query. It is longer than the
# limit for a query, so that a pass without a connection ends before another pass starts.
IDLE_SECONDS = 45
# PostgreSQL 17's limit would end the lock during a long pass; earlier versions do not know it.
TRANSACTION_LIMIT = "transaction_timeout"


# Codes of errors, or their beginnings → reasons.
REASONS: Mapping[str, Mapping[str, str]] = {
    "postgresql": {  # https://www.postgresql.org/docs/current/errcodes-appendix.html
        **dict.fromkeys(("42P01", "42703", "3F000"), "database_not_migrated"),
        **dict.fromkeys(("08", "57P", "25P03"), "database_lost"),
        "25006": "database_read_only",
        "28": "database_denied",
        "3D000": "database_missing",
        "42501": "database_read_denied",
    },
    "mysql": {  # https://dev.mysql.com/doc/mysql-errors/8.4/en/
        **dict.fromkeys(("1044", "1045", "1698"), "database_denied"),
        **dict.fromkeys(("1142", "1143"), "database_read_denied"),
        # By the server, innodb_read_only (two codes), or transaction_read_only.
        **dict.fromkeys(("1290", "1874", "1836", "1792"), "database_read_only"),
        **dict.fromkeys(("1146", "1054"), "database_not_migrated"),
        **dict.fromkeys(("2002", "2003"), "database_unreachable"),
        **dict.fromkeys(("2026", "3159"), "database_tls_failed"),
        # Gone, lost, shutdown, killed, idle for too long; 0: PyMySQL's for a closed one.
        **dict.fromkeys(("2006", "2013", "1053", "1927", "4031"), "database_lost"),
        "1049": "database_missing",
        "0": "database_lost",
    },
}
# PostgreSQL's connection errors have no code: what libpq, PostgreSQL and PgBouncer say.
_WORDS = {
    "database_missing": r'database "" does not exist|no such database',
    "database_denied": r'role "" does not exist|authentication (failed|method)|pg_hba\.conf|'
    r"no password supplied|no such user|not permitted to log in",
    # With TLS, a break mentions SSL.
    "database_lost": r"terminating connection|closed the connection|has been closed|"
    r"could not (receive|send) data|connection reset|ssl syscall|unexpected eof",
    "database_tls_failed": r"ssl|certificate|tls",
    "database_unreachable": r"could not (translate|connect)|name resolution|refused|no answer|"
    r"tim(eout|ed out)|no route|unreachable|no such file|starting up|shutting down|recovery",
}


class Database:
    """
    One connection, which may also hold the lock of passes.

    The lock is in the database itself. If this process dies, the server sees the connection end and
    releases it. If the whole node dies, the server ends the connection after `idle_seconds` without
    a query.

    Raises:
        SidecarError: The connection failed; the reason is the cause.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: sqlalchemy.Connection | None = None
        self._checked_at = time.monotonic()
        with self._explained():
            engine = sqlalchemy.create_engine(
                address.url.set(query={}) if address.dialect == "mysql" else address.url,
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",
                enable_from_linting=False,  # the fingerprint joins single rows
                connect_args=_arguments(address),
            )
            self._connection = engine.connect()

    def close(self) -> None:
        """
        Close the connection; ignore errors if it is already broken.
        """
        if self._connection is not None:
            with suppress(SQLAlchemyError, OSError):
                self._connection.invalidate()  # without a rollback, which a hanging server delays
            with suppress(SQLAlchemyError, OSError):
                self._connection.close()

    def columns(self, name: str, *columns: str) -> Any:
        """
        Return columns of a table of Airflow, for queries.
        """
        schema = self.address.schema or None
        return sqlalchemy.table(name, *map(sqlalchemy.column, columns), schema=schema).c

    def hash(self, column: Any) -> Any:
        """
        Return the hash of a text as an expression: two can be multiplied without an overflow.
        """
        if self.address.dialect == "mysql":
            return func.crc32(column)  # products have 64 bits, and their sum is a DECIMAL
        return cast(func.hashtext(column), BigInteger)

    def compiled(self, query: ClauseElement) -> str:
        """
        Return a query without parameters as text, because an expression costs 1.5 ms at each use.
        """
        assert self._connection is not None
        return str(query.compile(dialect=self._connection.dialect))

    def rows(self, query: str | Executable, **values: object) -> list[Row]:
        """
        Return all rows of a query; in a text, parameters are written ``:name``.

        Raises:
            SidecarError: The query or the connection failed.
        """
        query = sqlalchemy.text(query) if isinstance(query, str) else query
        with self._explained():
            assert self._connection is not None
            found = self._connection.execute(query, values)
            return [tuple(row) for row in found] if found.returns_rows else []

    def try_write(self) -> None:
        """
        Check that the account can write; otherwise Airflow would log an error per row and succeed.

        The server's settings do not show it: some accounts can write although it is ``read_only``.

        Raises:
            SidecarError: The query or the connection failed, or the account cannot write.
        """
        role = self.columns("ab_role", "id")
        try:
            self.rows(update(role.id.table).values(id=role.id).where(false()))
        except SidecarError as error:
            if error.reason != "database_read_denied":  # reading has worked until now
                raise
            raise failure("database_read_only", error.message) from None

    def try_lock(self, idle_seconds: int = IDLE_SECONDS) -> bool:
        """
        Try to take the lock, and hold it until :meth:`close`.

        PostgreSQL's is of a transaction, so that PgBouncer reserves the server connection until its
        end. MySQL's is a name that includes the database, as names are server-wide.

        Raises:
            SidecarError: The database failed.
        """
        schema = self.address.schema
        if self.address.dialect == "mysql":
            place = f"{self.address.url.database}/{schema}"
            name = f"sync-perm/{hashlib.sha256(place.encode()).hexdigest()[:32]}"
            self.rows(f"SET SESSION wait_timeout = {idle_seconds:d}")
            return bool(self.rows("SELECT GET_LOCK(:name, 0)", name=name)[0][0])
        self.rows("BEGIN")
        self.rows(f"SET LOCAL idle_in_transaction_session_timeout = {idle_seconds * 1000:d}")
        unlimited = "SELECT set_config(:name, '0', true) WHERE current_setting(:name, true) <> '0'"
        self.rows(unlimited, name=TRANSACTION_LIMIT)
        # Two signed 32-bit numbers.
        numbers = [zlib.crc32(text.encode()) for text in ("sync-perm", schema)]
        first, second = (number - (number >> 31 << 32) for number in numbers)
        is_ours = bool(self.rows(f"SELECT pg_try_advisory_xact_lock({first}, {second})")[0][0])
        if not is_ours:
            self.rows("ROLLBACK")
        return is_ours

    def check_lock(self) -> None:
        """
        Check with the server that we still hold the lock, at most once a second.

        Raises:
            SidecarError: The connection was lost, and with it the lock (``lock_lost``).
        """
        if time.monotonic() - self._checked_at < CHECK_SECONDS:
            return
        try:
            self.rows("SELECT 1")
        except SidecarError as error:
            text = "the connection that held the lock broke, so the pass was stopped"
            raise failure("lock_lost", f"{text}: {error}") from None
        self._checked_at = time.monotonic()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """
        Convert the drivers' errors into failures with a reason.
        """
        try:
            yield
        except (SQLAlchemyError, OSError, ValueError) as error:
            cause: BaseException = getattr(error, "orig", None) or error
            reason = _reason_of(cause, self.address.dialect)
            if reason == "database_lost" and self._connection is None:
                reason = "database_unreachable"
            lines = str(cause.args[-1] if cause.args else cause).splitlines()
            said = [" ".join(line.split()) for line in lines if line.strip("^ \t")]  # ^: libpq's
            message = f"{self.address}: {self.address.redact('; '.join(said))}"
            raise failure(reason, message) from None


def _reason_of(error: BaseException, dialect: str) -> str:
    """
    Return the reason for an error of a driver; ``database_lost`` also for a failed connect.
    """
    if isinstance(error, FileNotFoundError):  # ssl_ca
        return "database_tls_failed"
    # PyMySQL raises its own errors in place of the socket's. The end of a connection with TLS says
    # nothing about certificates or options.
    ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    causes = (error, error.__context__)
    if any(isinstance(one, ssl.SSLError) and not isinstance(one, ended) for one in causes):
        return "database_tls_failed"
    if dialect == "mysql":
        return REASONS[dialect].get(str(error.args[0]) if error.args else "", "database_failed")
    code = getattr(error, "pgcode", None) or ""
    found = (reason for prefix, reason in REASONS[dialect].items() if code.startswith(prefix))
    if reason := next(found, ""):
        return reason
    words = re.sub('"[^"]*"', '""', str(error).lower())  # without names, such as ssl.example.com
    return next(
        (r for r, pattern in _WORDS.items() if re.search(pattern, words)), "database_failed"
    )


def _arguments(address: Address) -> dict[str, Any]:
    """
    Return the arguments for our driver: ours, those in a MySQL URL, then Airflow's own.
    """
    if address.dialect == "mysql":
        given = {**address.url.query, **address.arguments}
        tls = mysql_tls(given)
        return {
            **{key: given[key] for key in ("charset", "unix_socket") if key in given},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "write_timeout": ANSWER_SECONDS,
            "ssl_disabled": not tls and "ssl_mode" in given,
            **({"ssl": tls} if tls else {}),
        }
    extensions.set_wait_callback(_wait)
    ours = {
        "application_name": f"sync-perm@{socket.gethostname()}"[:63],
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    ours = {key: value for key, value in ours.items() if key not in address.url.query}
    return {**ours, **address.arguments}


def mysql_tls(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return PyMySQL's TLS settings for the options of a URL; empty if TLS is disabled, or merely used
    if offered.

    Like Airflow's driver, ``ssl_ca`` without ``ssl_mode`` verifies the certificate. PyMySQL itself
    verifies nothing by default.
    """
    said = {key.removeprefix("ssl_"): value for key, value in given.items() if key != "ssl"}
    said = {key: str(value) for key, value in {**said, **given.get("ssl", {})}.items()}
    tls: dict[str, Any] = {key: said[key] for key in ("ca", "cert", "key") if key in said}
    mode = said.get("mode", "").upper()

    def says(*names: str, default: bool) -> bool:
        found = (said[key].lower() in ("true", "1", "yes") for key in names if key in said)
        return next(found, default)

    names_host = says("verify_identity", "check_hostname", default=mode == "VERIFY_IDENTITY")
    is_strict = names_host or mode.startswith("VERIFY_") or ("ca" in tls and not mode)
    verifies = says("verify_cert", default=is_strict) or names_host
    if mode == "DISABLED" or (mode in ("", "PREFERRED") and not tls and not verifies):
        return {}
    if verifies and "ca" not in tls:
        tls["capath"] = ssl.get_default_verify_paths().openssl_capath
    return {**tls, "check_hostname": names_host, "verify_mode": verifies}


def _wait(connection: Any) -> None:
    """
    Wait for PostgreSQL, as psycopg2 requests, but with a limit.

    Raises:
        psycopg2.OperationalError: The server did not answer in time.
    """
    until = time.monotonic() + ANSWER_SECONDS
    while (state := connection.poll()) != extensions.POLL_OK:
        readers = [connection] if state == extensions.POLL_READ else []
        writers = [connection] if state == extensions.POLL_WRITE else []
        left = max(0.0, until - time.monotonic())
        if not any(select.select(readers, writers, [], left)):
            raise psycopg2.OperationalError(f"no answer in {ANSWER_SECONDS:g} s")
