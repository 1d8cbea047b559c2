"""
A read-only connection to the metadata database, which maps the drivers' errors to reasons.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Protocol, cast

from sidecar_runtime.errors import SidecarError
from sync_perm.database.connection import Address

Row = tuple[Any, ...]


class Driver(Protocol):
    """
    The interface of a database's module, such as :mod:`sync_perm.database.postgresql`.
    """

    PLACEHOLDER: str
    TEXT: str
    """SQL that converts a JSON column to text: ``CAST({} AS TEXT)``."""
    MILLISECONDS: str
    """SQL that converts a timestamp to an integer."""
    NUMBER: str
    """SQL that hashes a text to an integer."""
    PRODUCT: str
    """SQL that multiplies two 32-bit numbers so that the sum of many products fits."""
    TRY_WRITE: str
    """SQL that changes no row of a table, but fails if writing is not possible."""
    QUOTE: str
    """The quotation mark for names."""
    ERRORS: tuple[type[Exception], ...]
    """The classes of the driver's errors."""

    def connect(self, address: Address) -> Any:
        """
        Return a connection of the Python database API 2.0, in autocommit mode.
        """

    def explain(self, error: Exception) -> str:
        """
        Return the reason for an error of the driver; ``database_lost`` also for a failed connect.
        """

    def try_lock(self, connection: Any, address: Address, idle_seconds: int) -> bool:
        """
        Try to take the lock, which is held until the connection ends.

        The server ends the connection after `idle_seconds` without a query.
        """


ADVICE = {
    "database_unreachable": "Check the database, the network policies and the host in the URL. "
    "The sidecar recovers automatically.",
    "database_denied": "Correct user and password in the Secret, or the server's access rules. "
    "Then restart the pod, unless the URL comes from a command.",
    "database_missing": "Correct the database name in the URL.",
    "database_tls_failed": "Correct sslmode, sslrootcert or ssl_ca in the URL.",
    "database_not_migrated": "Run Airflow's migrations (airflow db migrate). Passes wait for them.",
    "database_read_denied": "Grant SELECT on the table to the account in the URL. On SQLite, let "
    "this user read the folder.",
    "database_read_only": "Use an account that may write, as Airflow's own does. After a failover, "
    "the sidecar recovers once the host name leads to the primary.",
    "database_lost": "The sidecar reconnects automatically.",
    "database_failed": "Read the database's message.",
    "driver_missing": "Install sync-perm with all of its dependencies: rebuild its image.",
}


class Database:
    """
    One connection.

    Raises:
        SidecarError: The connection failed; the reason is the cause.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.driver = load_driver(address)
        self._connection: Any = None
        with self._explained():
            self._connection = self.driver.connect(address)

    def table(self, name: str) -> str:
        """
        Return the name of a table for use in SQL.
        """
        schema, quote = self.address.schema, self.driver.QUOTE
        return f"{quote}{schema.replace(quote, 2 * quote)}{quote}.{name}" if schema else name

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """
        Return all rows of a query; ``{}`` stands for a placeholder.

        Raises:
            SidecarError: The query or the connection failed.
        """
        return list(self.each(sql, parameters))

    def each(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """
        Yield the rows of a query; they are not all in memory at once if the driver supports that.

        Raises:
            SidecarError: The query or the connection failed.
        """
        with self._explained(), closing(self._connection.cursor()) as cursor:
            cursor.execute(sql.replace("{}", self.driver.PLACEHOLDER), tuple(parameters))
            yield from cursor

    def try_write(self) -> None:
        """
        Check that the account can write; otherwise Airflow would log an error per row and succeed.

        The server's settings do not show it: some accounts can write although it is ``read_only``.

        Raises:
            SidecarError: The query or the connection failed, or the account cannot write.
        """
        try:
            self.rows(self.driver.TRY_WRITE.format(self.table("ab_role")))
        except SidecarError as error:
            if error.reason != "database_read_denied":  # reading has worked until now
                raise
            reason = "database_read_only"
            raise SidecarError(reason, error.message, ADVICE[reason]) from None

    def close(self) -> None:
        """
        Close the connection; ignore errors if it is already broken.
        """
        with suppress(*self.driver.ERRORS):
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """
        Convert the driver's errors into failures with a reason.
        """
        try:
            yield
        except self.driver.ERRORS as error:
            reason = self.driver.explain(error)
            if reason == "database_lost" and self._connection is None:
                reason = "database_unreachable"
            lines = str(error.args[-1] if error.args else error).splitlines()
            said = [" ".join(line.split()) for line in lines if line.strip("^ \t")]  # ^: libpq's
            message = f"{self.address}: {self.address.redact('; '.join(said))}"
            raise SidecarError(reason, message, ADVICE[reason]) from None


def load_driver(address: Address) -> Driver:
    """
    Import the only driver that is needed, to save memory.

    Raises:
        SidecarError: The driver is not installed.
    """
    try:
        return cast(Driver, importlib.import_module(f"sync_perm.database.{address.dialect}"))
    except ImportError as error:
        reason = "driver_missing"
        raise SidecarError(reason, f"no driver for {address}: {error}", ADVICE[reason]) from None
