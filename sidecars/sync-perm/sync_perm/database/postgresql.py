"""
The driver for PostgreSQL, also behind PgBouncer: no prepared statements, no session state.
"""

from __future__ import annotations

import re
import select
import socket
import time
import zlib
from typing import Any

import psycopg2
import psycopg2.extensions as libpq

from sync_perm.database.connection import Address

PLACEHOLDER = "%s"
TEXT = "CAST({} AS TEXT)"
NUMBER = "HASHTEXT({})"
PRODUCT = "CAST({} AS BIGINT) * {}"
TRY_WRITE = "SELECT id FROM {} WHERE 1 = 0 FOR UPDATE"
QUOTE = '"'
ERRORS = (psycopg2.Error, ValueError)
MILLISECONDS = "CAST(EXTRACT(EPOCH FROM {}) * 1000 AS BIGINT)"

# PostgreSQL 17's limit would end the lock during a long pass; earlier versions do not know it.
TRANSACTION_LIMIT = "transaction_timeout"
UNLIMITED = "SELECT set_config(%(name)s, '0', true) WHERE current_setting(%(name)s, true) <> '0'"

# The limit for one connect or query: a server that never answers must not block a cycle.
ANSWER_SECONDS = 30.0

# SQLSTATE classes and codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
REASONS_BY_CODE = {
    "42P01": "database_not_migrated",
    "42703": "database_not_migrated",
    "3F000": "database_not_migrated",
    "25006": "database_read_only",
    "42501": "database_read_denied",
    "3D000": "database_missing",
    "28": "database_denied",
    "08": "database_lost",
    "57P": "database_lost",
    "25P03": "database_lost",
}
# Connection errors have no code: match the messages of libpq, PostgreSQL and PgBouncer.
REASONS_BY_WORDS = (
    ("database_denied", ("authentication failed", "pg_hba.conf", "no password supplied")),
    ("database_denied", ("no such user", "not permitted to log in", "authentication method")),
    ("database_missing", ("no such database",)),
    ("database_lost", ("terminating connection", "closed the connection", "has been closed")),
    ("database_lost", ("could not receive data", "could not send data", "connection reset")),
    # With TLS, libpq mentions SSL when a connection breaks.
    ("database_lost", ("ssl syscall", "unexpected eof")),
    ("database_tls_failed", ("ssl", "certificate", "tls")),
    ("database_unreachable", ("could not translate", "name resolution", "refused", "no answer")),
    ("database_unreachable", ("timeout", "timed out", "no route", "unreachable", "no such file")),
    ("database_unreachable", ("starting up", "shutting down", "could not connect", "recovery")),
)


def connect(address: Address) -> Any:
    libpq.set_wait_callback(_wait)
    connection = psycopg2.connect(**parameters(address))
    connection.autocommit = True
    return connection


def parameters(address: Address) -> dict[str, Any]:
    """
    Return the parameters for libpq.

    SQLAlchemy writes several hosts as ``host=a:1&host=b:2``; libpq expects two lists.
    """
    options = dict(address.options)
    hosts = [one.split(":") for one in options.get("host", "").split(",")]
    if any(len(host) == 2 for host in hosts):  # one colon: neither an IPv6 address nor a path
        options["host"] = ",".join(host[0] for host in hosts)
        options["port"] = ",".join("".join(host[1:]) for host in hosts)
    given: dict[str, object] = {
        "host": address.host,
        "port": address.port,
        "user": address.user,
        "password": address.password,
        "dbname": address.database,
        "application_name": f"sync-perm@{socket.gethostname()}"[:63],
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        **options,
    }
    return {key: value for key, value in given.items() if value not in (None, "")}


def explain(error: Exception) -> str:
    code = getattr(error, "pgcode", None) or ""
    for prefix, reason in REASONS_BY_CODE.items():
        if code.startswith(prefix):
            return reason
    words = re.sub('"[^"]*"', '""', str(error).lower())  # without names, such as ssl.example.com
    if 'database "' in words and "does not exist" in words:
        return "database_missing"
    if 'role "' in words and "does not exist" in words:
        return "database_denied"
    for reason, found in REASONS_BY_WORDS:
        if any(word in words for word in found):
            return reason
    return "database_failed"


def try_lock(connection: Any, address: Address, idle_seconds: int) -> bool:
    """
    Lock within a transaction, so that PgBouncer reserves the server connection until its end.
    """
    connection.autocommit = False
    with connection.cursor() as cursor:
        milliseconds = str(idle_seconds * 1000)
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = %s", (milliseconds,))
        cursor.execute(UNLIMITED, {"name": TRANSACTION_LIMIT})
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", _key(address.schema))
        is_ours: bool = cursor.fetchone()[0]
    if not is_ours:
        connection.rollback()
    return is_ours


def _key(schema: str) -> tuple[int, int]:
    """
    Return our key for the database's advisory locks: two signed 32-bit numbers.
    """
    numbers = (zlib.crc32(text.encode()) for text in ("sync-perm", schema))
    first, second = (number - (number >> 31 << 32) for number in numbers)
    return first, second


def _wait(connection: Any) -> None:
    """
    Wait for the server, as psycopg2 requests, but with a limit.

    Raises:
        psycopg2.OperationalError: The server did not answer in time.
    """
    until = time.monotonic() + ANSWER_SECONDS
    while (state := connection.poll()) != libpq.POLL_OK:
        readers = [connection] if state == libpq.POLL_READ else []
        writers = [connection] if state == libpq.POLL_WRITE else []
        left = max(0.0, until - time.monotonic())
        if not any(select.select(readers, writers, [], left)):
            raise psycopg2.OperationalError(f"no answer in {ANSWER_SECONDS:g} s")
