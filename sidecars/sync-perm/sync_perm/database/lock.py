"""
One pass at a time for one database, however many sidecars there are.
"""

from __future__ import annotations

import time

from sidecar_runtime.errors import SidecarError
from sync_perm.database.connection import Address
from sync_perm.database.database import Database

# A lost lock is noticed within this, and a server that ends idle transactions sees none.
CHECK_SECONDS = 1.0


class PassLock:
    """
    A lock in the database itself, on a connection of its own that ends with the ``with``.

    However this process dies, the server sees the connection end and gives the lock to the next.

    Raises:
        SidecarError: The database failed, on entering.
    """

    def __init__(self, address: Address) -> None:
        self._database = Database(address)
        self._checked_at = time.monotonic()

    def __enter__(self) -> PassLock:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def try_acquire(self) -> bool:
        """
        Try to become the holder.

        Raises:
            SidecarError: The database failed.
        """
        return self._database.try_lock()

    def check(self) -> None:
        """
        Ask the server whether we still hold it, at most once a second.

        Raises:
            SidecarError: The connection is gone (``lock_lost``), and with it the lock.
        """
        if time.monotonic() - self._checked_at < CHECK_SECONDS:
            return
        try:
            self._database.rows("SELECT 1")
        except SidecarError as error:
            raise SidecarError(
                "lock_lost",
                f"the connection that held the lock broke, so the pass was stopped: {error}",
                "This passes by itself; another sidecar may go on meanwhile.",
            ) from None
        self._checked_at = time.monotonic()
