"""
A connection to the metadata database that only reads; the drivers' errors become reasons.
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
    What the module of a database brings: :mod:`sync_perm.database.postgresql` and its like.
    """

    PLACEHOLDER: str
    TEXT: str
    """The SQL that makes text of a JSON column: ``CAST({} AS TEXT)``."""
    MILLISECONDS: str
    """The SQL that makes a whole number of a moment."""
    NUMBER: str
    """The SQL that makes a whole number of a text, for most texts another one."""
    PRODUCT: str
    """The SQL that multiplies two numbers of 32 bits, so that the sum of many fits."""
    TRY_WRITE: str
    """The SQL that changes no row of a table, and fails where nothing can be written."""
    QUOTE: str
    """The mark around a name."""
    ERRORS: tuple[type[Exception], ...]
    """The classes of the driver's errors."""

    def connect(self, address: Address) -> Any:
        """
        Return a connection of the Python database API 2.0, with autocommit.
        """

    def explain(self, error: Exception) -> str:
        """
        Return our reason for an error of the driver.
        """

    def try_lock(self, connection: Any, address: Address, idle_seconds: int) -> bool:
        """
        Try to become the only holder of the lock, until the connection ends.

        The server ends it after so long without a question.
        """


ADVICE = {
    "database_unreachable": "Look at the database, the network policies and the host in the URL; "
    "this passes by itself.",
    "database_denied": "Correct user and password in the Secret, or the server's access rules.",
    "database_missing": "Correct the name in the URL.",
    "database_tls_failed": "Correct sslmode, sslrootcert or ssl_ca in the URL.",
    "database_not_migrated": "Run Airflow's migrations (airflow db migrate); nothing is started "
    "until then.",
    "database_read_denied": "Grant SELECT on the table to the account in the URL; on SQLite, let "
    "this user read the folder.",
    "database_read_only": "It passes by itself once the name leads to the primary again; "
    "the account must be one that may write, as Airflow's own.",
    "database_lost": "This passes by itself.",
    "database_failed": "See what the database says.",
    "driver_missing": "Install the driver that the URL names.",
}


class Database:
    """
    One connection.

    Raises:
        SidecarError: It cannot be made; the reason tells which of a dozen causes.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.driver = load_driver(address)
        with self._explained():
            self._connection = self.driver.connect(address)

    def table(self, name: str) -> str:
        """
        Return the name of a table as SQL takes it.
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
        Yield the rows of a query, which are not in memory together where the driver can do so.

        Raises:
            SidecarError: The query or the connection failed.
        """
        with self._explained(), closing(self._connection.cursor()) as cursor:
            cursor.execute(sql.replace("{}", self.driver.PLACEHOLDER), tuple(parameters))
            yield from cursor

    def try_write(self) -> None:
        """
        Fail where Airflow would log an error for each row, and end as if all were well.

        The server's settings do not tell: some accounts write although it is ``read_only``.

        Raises:
            SidecarError: The query or the connection failed, or nothing can be written here.
        """
        try:
            self.rows(self.driver.TRY_WRITE.format(self.table("ab_role")))
        except SidecarError as error:
            if error.reason != "database_read_denied":  # whoever may only read has read until now
                raise
            reason = "database_read_only"
            raise SidecarError(reason, error.message, ADVICE[reason]) from None

    def close(self) -> None:
        """
        Let go of the connection; one that is broken already is fine.
        """
        with suppress(*self.driver.ERRORS):
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """
        Make reasons of the driver's errors.
        """
        try:
            yield
        except self.driver.ERRORS as error:
            reason = self.driver.explain(error)
            lines = str(error.args[-1] if error.args else error).splitlines()
            said = [" ".join(line.split()) for line in lines if line.strip("^ \t")]  # ^: libpq's
            message = f"{self.address}: {self.address.redact('; '.join(said))}"
            raise SidecarError(reason, message, ADVICE[reason]) from None


def load_driver(address: Address) -> Driver:
    """
    Import the one driver that is needed; the others would cost memory.

    Raises:
        SidecarError: It is not installed.
    """
    try:
        return cast(Driver, importlib.import_module(f"sync_perm.database.{address.dialect}"))
    except ImportError as error:
        reason = "driver_missing"
        raise SidecarError(reason, f"no driver for {address}: {error}", ADVICE[reason]) from None
