"""
The driver for MySQL and MariaDB.
"""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

import pymysql
from pymysql.constants import CR, ER

from sync_perm.database.connection import Address

PLACEHOLDER = "%s"
TEXT = "CAST({} AS CHAR)"
NUMBER = "CRC32({})"
PRODUCT = "{} * {}"  # products have 64 bits, and their sum is a DECIMAL
TRY_WRITE = "UPDATE {} SET id = id WHERE 1 = 0"
QUOTE = "`"
ERRORS = (pymysql.Error, OSError, ValueError)
MILLISECONDS = "CAST(UNIX_TIMESTAMP({}) * 1000 AS SIGNED)"
CONNECT_SECONDS = 10
ANSWER_SECONDS = 30

# The options that mysqlclient and PyMySQL read from the URL, apart from TLS options.
_OPTIONS = ("charset", "unix_socket")
REASONS_BY_CODE = {
    ER.ACCESS_DENIED_ERROR: "database_denied",
    ER.DBACCESS_DENIED_ERROR: "database_denied",
    1698: "database_denied",
    ER.BAD_DB_ERROR: "database_missing",
    ER.NO_SUCH_TABLE: "database_not_migrated",
    ER.BAD_FIELD_ERROR: "database_not_migrated",
    ER.TABLEACCESS_DENIED_ERROR: "database_read_denied",
    ER.COLUMNACCESS_DENIED_ERROR: "database_read_denied",
    ER.OPTION_PREVENTS_STATEMENT: "database_read_only",  # read_only, which some accounts may ignore
    ER.OPEN_AS_READONLY: "database_read_only",  # innodb_read_only
    1836: "database_read_only",  # the same on MySQL
    1792: "database_read_only",  # transaction_read_only
    3159: "database_tls_failed",  # the server insists on TLS
    CR.CR_SSL_CONNECTION_ERROR: "database_tls_failed",
    CR.CR_CONN_HOST_ERROR: "database_unreachable",
    CR.CR_CONNECTION_ERROR: "database_unreachable",
    CR.CR_SERVER_GONE_ERROR: "database_lost",
    CR.CR_SERVER_LOST: "database_lost",
    ER.SERVER_SHUTDOWN: "database_lost",
    1927: "database_lost",  # the connection was killed
    4031: "database_lost",  # MySQL, after wait_timeout
    0: "database_lost",  # PyMySQL, for a connection that is already closed
}
_TRUE = ("true", "1", "yes")
# With TLS, the end of a connection; this says nothing about certificates or options.
_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError)


def connect(address: Address) -> Any:
    options = {key: value for key, value in address.options.items() if key in _OPTIONS}
    return pymysql.connect(
        host=address.host or "localhost",
        port=address.port or 3306,
        user=address.user,
        password=address.password,
        database=address.database,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=ANSWER_SECONDS,
        write_timeout=ANSWER_SECONDS,
        autocommit=True,
        ssl_disabled=address.options.get("ssl_mode", "").upper() == "DISABLED",
        ssl=tls(address),
        **options,
    )


def tls(address: Address) -> ssl.SSLContext | None:
    """
    Return the TLS settings in the URL; None if TLS is disabled or merely used if offered.

    Like Airflow's driver, ``ssl_ca`` without ``ssl_mode`` verifies the certificate, and with
    PyMySQL also the host name. PyMySQL itself verifies nothing by default.
    """
    options = address.options
    mode, authority = options.get("ssl_mode", "").upper(), options.get("ssl_ca")
    is_strict = authority is not None and not mode

    def says(*names: str, default: bool) -> bool:
        said = [options[name].lower() in _TRUE for name in names if name in options]
        return said[0] if said else default

    is_pymysql = address.url.startswith("mysql+pymysql:")
    names_host = says(
        "ssl_verify_identity",
        "ssl_check_hostname",
        default=mode == "VERIFY_IDENTITY" or (is_strict and is_pymysql),
    )
    verifies = names_host or says(
        "ssl_verify_cert", default=mode.startswith("VERIFY_") or is_strict
    )
    is_optional = mode in ("", "PREFERRED") and not (authority or "ssl_cert" in options)
    if mode == "DISABLED" or (is_optional and not verifies):
        return None
    context = ssl.create_default_context(cafile=authority)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # MySQL's own certificates would fail
    context.check_hostname = names_host
    context.verify_mode = ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE
    if "ssl_cert" in options:
        context.load_cert_chain(options["ssl_cert"], options.get("ssl_key"))
    return context


def explain(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):  # ssl_ca
        return "database_tls_failed"
    # PyMySQL raises its own errors in place of the socket's.
    for cause in (error, error.__context__):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _ENDED):
            return "database_tls_failed"
    code = error.args[0] if error.args else None
    return (
        REASONS_BY_CODE.get(code, "database_failed") if isinstance(code, int) else "database_failed"
    )


def try_lock(connection: Any, address: Address, idle_seconds: int) -> bool:
    """
    Lock a name until the connection ends; it includes the database, as names are server-wide.
    """
    digest = hashlib.sha256(f"{address.database}/{address.schema}".encode()).hexdigest()
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION wait_timeout = %s", (idle_seconds,))
        cursor.execute("SELECT GET_LOCK(%s, 0)", (f"sync-perm/{digest[:32]}",))
        return bool(cursor.fetchone()[0])
