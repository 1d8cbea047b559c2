"""
Database connections, and the reasons for their failures.
"""

import errno
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg2
import pymysql
import pytest

from sidecar_runtime.errors import SidecarError
from sync_perm.database import mysql, postgresql
from sync_perm.database.connection import parse_url
from sync_perm.database.database import ADVICE, Database
from sync_perm.database.lock import PassLock
from tests.support.http.certificates import self_signed
from tests.support.machine.descriptors import held
from tests.support.program import own_port
from tests.support.raising import raised
from tests.sync_perm.given import Sqlite

AT = 'connection to server at "pg-ssl.example.com" (10.0.0.1), port 5432 failed:'
EOF = ssl.SSLEOFError(
    8, "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol"
)


def reason_of(url: str) -> str:
    address = parse_url("TEST", url, "")
    error = raised(SidecarError, lambda: Database(address).rows("SELECT * FROM ab_role"))
    assert "s3cret" not in str(error)
    assert error.advice == ADVICE[error.reason]
    return error.reason


def by_pymysql(code: int, cause: OSError) -> pymysql.OperationalError:
    """Return the error that PyMySQL raises for one of the socket."""
    error = pymysql.OperationalError(code, f"MySQL server on 'db-SSL' ({cause!r})")
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('FATAL:  password authentication failed for user "a"', "database_denied"),
        ('FATAL:  no pg_hba.conf entry for host "1", user "a", SSL off', "database_denied"),
        ('FATAL:  role "a" does not exist', "database_denied"),
        ("fe_sendauth: no password supplied", "database_denied"),
        ('FATAL:  database "meta" does not exist', "database_missing"),
        ("FATAL:  no such database: meta", "database_missing"),
        ("server does not support SSL, but SSL was required", "database_tls_failed"),
        ('root certificate file "/x" does not exist', "database_tls_failed"),
        ('could not translate host name "db" to address', "database_unreachable"),
        ("Connection refused", "database_unreachable"),
        ("no answer in 30 s", "database_unreachable"),
        ("FATAL:  the database system is starting up", "database_unreachable"),
        ("FATAL:  sorry, too many clients already", "database_failed"),
        (f"{AT} Connection refused", "database_unreachable"),
        (f"{AT} FATAL:  sorry, too many clients already", "database_failed"),
        (f"{AT} SSL SYSCALL error: EOF detected", "database_lost"),
        (f"{AT} SSL error: certificate verify failed", "database_tls_failed"),
        (f"{AT} server does not support SSL, but SSL was required", "database_tls_failed"),
        ('could not open certificate file "/x": No such file or directory', "database_tls_failed"),
        ('could not translate host name "tls.example" to address', "database_unreachable"),
        ("server closed the connection unexpectedly", "database_lost"),
        ("could not receive data from server: Connection timed out", "database_lost"),
        ("could not receive data from server: SSL error: bad length", "database_lost"),
        ("could not send data to server: Broken pipe", "database_lost"),
        ("SSL connection has been closed unexpectedly", "database_lost"),
        ("SSL SYSCALL error: EOF detected", "database_lost"),
        ("SSL SYSCALL error: Connection reset by peer", "database_lost"),
        ("SSL error: unexpected eof while reading", "database_lost"),
        ("FATAL:  terminating connection due to administrator command", "database_lost"),
    ],
)
def test_each_postgresql_error_has_its_reason(words: str, reason: str) -> None:
    assert reason == postgresql.explain(psycopg2.OperationalError(words))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (pymysql.OperationalError(1045, "Access denied"), "database_denied"),
        (pymysql.OperationalError(1049, "Unknown database"), "database_missing"),
        (pymysql.ProgrammingError(1146, "no such table"), "database_not_migrated"),
        (pymysql.OperationalError(1142, "SELECT command denied"), "database_read_denied"),
        (pymysql.OperationalError(2003, "Can't connect"), "database_unreachable"),
        (by_pymysql(2003, ConnectionRefusedError(111, "refused")), "database_unreachable"),
        (by_pymysql(2003, ssl.SSLCertVerificationError(1, "self-signed")), "database_tls_failed"),
        (by_pymysql(2003, EOF), "database_unreachable"),
        (by_pymysql(2006, EOF), "database_lost"),
        (by_pymysql(2013, EOF), "database_lost"),
        (by_pymysql(2013, ssl.SSLZeroReturnError(6, "closed (EOF)")), "database_lost"),
        (by_pymysql(2013, ConnectionResetError(104, "reset")), "database_lost"),
        (by_pymysql(2013, ssl.SSLError(1, "[SSL: ALERT] no certificate")), "database_tls_failed"),
        (pymysql.OperationalError(2013, "Lost connection"), "database_lost"),
        (pymysql.OperationalError(4031, "disconnected because of inactivity"), "database_lost"),
        (pymysql.OperationalError(1045, "Access denied for user 'SSL'"), "database_denied"),
        (pymysql.OperationalError(2026, "SSL is required"), "database_tls_failed"),
        (pymysql.OperationalError(1036, "Table is read only"), "database_read_only"),
        (pymysql.OperationalError(1836, "Running in read-only mode"), "database_read_only"),
        (pymysql.InterfaceError(0, ""), "database_lost"),
        (ssl.SSLError(1, "no"), "database_tls_failed"),
        (FileNotFoundError(2, "no ssl_ca"), "database_tls_failed"),
        (pymysql.OperationalError(1205, "Lock wait timeout"), "database_failed"),
    ],
)
def test_each_mysql_error_has_its_reason(error: Exception, reason: str) -> None:
    assert reason == mysql.explain(error)


def test_every_reason_has_advice() -> None:
    reasons = {*postgresql.REASONS_BY_CODE.values(), *mysql.REASONS_BY_CODE.values()}
    reasons |= {reason for reason, _ in postgresql.REASONS_BY_WORDS}

    assert set() == reasons - ADVICE.keys()


def test_does_not_create_a_missing_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "none.db"

    assert "database_missing" == reason_of(f"sqlite:///{path}")
    assert not path.exists()


def test_reports_a_database_without_airflows_tables_as_not_migrated(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE t (i)")

    assert "database_not_migrated" == reason_of(f"sqlite:///{tmp_path}/empty.db")


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_reports_a_closed_port_as_unreachable(dialect: str) -> None:
    url = f"{dialect}://airflow:s3cret@127.0.0.1:{own_port()}/meta"

    assert "database_unreachable" == reason_of(url)


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_a_server_that_hangs_up_during_the_login_is_unreachable(dialect: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.shutdown(socket.SHUT_WR)
            with connection, suppress(OSError):
                connection.recv(1)  # not earlier, or the client gets a reset

        thread = threading.Thread(target=hang_up)
        thread.start()
        reason = reason_of(f"{dialect}://airflow:s3cret@127.0.0.1:{listener.getsockname()[1]}/meta")
        thread.join()

    assert "database_unreachable" == reason


def test_separates_the_lines_of_a_libpq_error() -> None:
    address = parse_url("TEST", f"postgresql://a:b@127.0.0.1:{own_port()}/meta", "")

    error = raised(SidecarError, lambda: Database(address))

    assert ": Connection refused; Is the server running" in error.message


@pytest.mark.parametrize(
    ("scheme", "options", "asked"),
    [
        ("mysql", "", None),
        ("mysql", "ssl_mode=PREFERRED", None),
        ("mysql", "ssl_mode=DISABLED&ssl_ca=/missing", None),
        ("mysql", "ssl_mode=REQUIRED", (False, False)),
        ("mysql", "ssl_mode=VERIFY_CA", (True, False)),
        ("mysql", "ssl_mode=VERIFY_IDENTITY", (True, True)),
        ("mysql", "ssl_ca={ca}", (True, False)),
        ("mysql", "ssl_ca={ca}&ssl_mode=required", (False, False)),
        ("mysql", "ssl_ca={ca}&ssl_mode=VERIFY_IDENTITY", (True, True)),
        ("mysql", "ssl_ca={ca}&ssl_check_hostname=true", (True, True)),
        ("mysql", "ssl_ca={ca}&ssl_verify_cert=false", (False, False)),
        ("mysql+pymysql", "ssl_ca={ca}", (True, True)),
        ("mysql+pymysql", "ssl_ca={ca}&ssl_check_hostname=false", (True, False)),
    ],
)
def test_mysql_tls_follows_the_options_of_airflows_url(
    tmp_path: Path, scheme: str, options: str, asked: tuple[bool, bool] | None
) -> None:
    _, authority = self_signed(tmp_path, "db.example")
    url = f"{scheme}://a:b@db.example/meta?{options.format(ca=authority)}"

    context = mysql.tls(parse_url("TEST", url, ""))

    assert asked == (context and (context.verify_mode == ssl.CERT_REQUIRED, context.check_hostname))


def test_opens_sqlite_read_only(database: Database) -> None:
    with pytest.raises(SidecarError, match="readonly"):
        database.rows("DELETE FROM ab_role")


def test_table_names_include_the_quoted_schema(sqlite: Sqlite) -> None:
    address = parse_url("TEST", sqlite.address.url, "main")

    assert '"main".ab_role' == Database(address).table("ab_role")
    assert [] == Database(address).rows(f"SELECT * FROM {Database(address).table('ab_role')}")
    odd = Database(parse_url("TEST", sqlite.address.url, 'od"d'))
    assert '"od""d".ab_role' == odd.table("ab_role")
    assert ('"', "`") == (postgresql.QUOTE, mysql.QUOTE)


def test_only_one_holder_gets_the_lock_at_a_time(sqlite: Sqlite) -> None:
    with PassLock(sqlite.address) as one, PassLock(sqlite.address) as another:
        assert one.try_acquire()
        assert not another.try_acquire()
        one.check()

    with PassLock(sqlite.address) as next_one:
        assert next_one.try_acquire()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that an unprivileged user can enter, unlike root's temporary folder."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@contextmanager
def plain_user() -> Iterator[None]:
    """Become an unprivileged user if the tests run as root."""
    before = os.geteuid()
    os.seteuid(before or 65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_reports_a_folder_that_cannot_be_read(folder: Path) -> None:
    sqlite = Sqlite(folder / "airflow.db")
    folder.chmod(0o311)
    with plain_user(), PassLock(sqlite.address) as lock:
        error = raised(SidecarError, lock.try_acquire)

    assert "database_read_denied" == error.reason
    assert f"this user cannot read {folder}" in error.message


def test_a_file_system_without_locks_leaves_no_open_descriptor(
    sqlite: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_: int, __: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    folder = Path(sqlite.path).parent
    with PassLock(sqlite.address) as lock:
        before = held(folder)

        error = raised(SidecarError, lock.try_acquire)

        assert ("database_failed", True) == (error.reason, "No locks" in error.message)
        assert before == held(folder)


def test_sqlite_reads_stay_current_after_the_lock_is_released(sqlite: Sqlite) -> None:
    """
    Closing any descriptor of the file releases SQLite's own POSIX locks on it. The next process
    then believes that it is the last, removes the write-ahead log, and we would read the old log.
    """
    sqlite.run("PRAGMA journal_mode = WAL")
    sqlite.close()
    program = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('INSERT INTO ab_role (name) VALUES (?)', [sys.argv[2]]); db.close()"
    )
    with closing(Database(sqlite.address)) as reader:
        for role in ("first", "second", "third", "fourth"):
            subprocess.run([sys.executable, "-c", program, sqlite.path, role], check=True)
            assert (role,) in reader.rows("SELECT name FROM ab_role")
            with PassLock(sqlite.address) as lock:
                assert lock.try_acquire()
