"""
One pass at a time for one database, however many sidecars there are.
"""

from __future__ import annotations

import time
from typing import Self

from sidecar_runtime.errors import SidecarError
from sync_perm.database.connection import Address
from sync_perm.database.database import Database

# A lost lock is noticed within this, and the one who asks so often is never idle.
CHECK_SECONDS = 1.0
# The server frees the lock of a node that is gone after so long without a question. More than a
# question may take without an answer, so that a pass that is cut off ends before another begins.
IDLE_SECONDS = 45


class PassLock(Database):
    """
    A connection that may hold the lock, which is in the database itself; a ``with`` closes it.

    However this process dies, the server sees the connection end and gives the lock to the next;
    where the whole node dies, it hears nothing for `idle_seconds`, and ends the connection.

    Raises:
        SidecarError: The database failed, on entering.
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
        Try to become the holder, until :meth:`close`.

        Raises:
            SidecarError: The database failed.
        """
        with self._explained():
            return self.driver.try_lock(self._connection, self.address, self._idle_seconds)

    def check(self) -> None:
        """
        Ask the server whether we still hold it, at most once a second.

        Raises:
            SidecarError: The connection is gone (``lock_lost``), and with it the lock.
        """
        if time.monotonic() - self._checked_at < CHECK_SECONDS:
            return
        try:
            self.rows("SELECT 1")
        except SidecarError as error:
            raise SidecarError(
                "lock_lost",
                f"the connection that held the lock broke, so the pass was stopped: {error}",
                "This passes by itself; another sidecar may go on meanwhile.",
            ) from None
        self._checked_at = time.monotonic()
