"""
Ensures one pass at a time per database, for any number of sidecars.
"""

from __future__ import annotations

import time
from typing import Self

from sidecar_runtime.errors import SidecarError
from sync_perm.database.connection import Address
from sync_perm.database.database import Database

# A lost lock is noticed within this time; the checks also keep the connection from being idle.
CHECK_SECONDS = 1.0
# The server frees the lock of a lost node after this time without a query. It is longer than the
# limit for a query, so that a pass without a connection ends before another pass starts.
IDLE_SECONDS = 45


class PassLock(Database):
    """
    A connection that can hold the lock, which is in the database itself; a ``with`` closes it.

    If this process dies, the server sees the connection end and releases the lock. If the whole
    node dies, the server ends the connection after `idle_seconds` without a query.

    Raises:
        SidecarError: The connection failed, on creation.
    """

    def __init__(self, address: Address, idle_seconds: int = IDLE_SECONDS) -> None:
        super().__init__(address)
        self._idle_seconds = idle_seconds
        self._checked_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def try_acquire(self) -> bool:
        """
        Try to take the lock, and hold it until :meth:`close`.

        Raises:
            SidecarError: The database failed.
        """
        with self._explained():
            return self.driver.try_lock(self._connection, self.address, self._idle_seconds)

    def check(self) -> None:
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
            raise SidecarError(
                "lock_lost",
                f"the connection that held the lock broke, so the pass was stopped: {error}",
                "The sidecar retries automatically; another one may take over meanwhile.",
            ) from None
        self._checked_at = time.monotonic()
