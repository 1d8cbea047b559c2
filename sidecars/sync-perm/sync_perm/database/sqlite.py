"""
The driver for SQLite, for development and trials on one machine.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from typing import Any
from urllib.parse import quote

from sync_perm.database.connection import Address

PLACEHOLDER = "?"
TEXT = "{}"
NUMBER = "CRC32({})"  # a function of our own
# Modulo primes, as SQLite fails on a sum beyond 64 bits, and rounds a product beyond them.
PRODUCT = "({} % 3037000493) * ({} % 3037000493) % 4294967291"
TRY_WRITE = "SELECT id FROM {} WHERE 1 = 0"  # our own connection never writes
QUOTE = '"'
REPLACED = "the file was replaced"
ERRORS = (sqlite3.Error, OSError, UnicodeError)
MILLISECONDS = "CAST(ROUND(JULIANDAY({}) * 86400000) AS INTEGER)"


class _Connection(sqlite3.Connection):
    """
    A connection that is lost if another file replaces its own.

    It owns the lock, so that both end together.
    """

    lock_fd: int | None = None

    def __init__(self, path: str) -> None:
        self._path, self._file = path, os.stat(path)
        # Read-only, because SQLite would create a missing file.
        super().__init__(
            f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        if not os.path.samestat(self._file, os.stat(self._path)):
            raise sqlite3.OperationalError(REPLACED)
        return super().cursor(factory)

    def close(self) -> None:
        super().close()
        if self.lock_fd is not None:
            os.close(self.lock_fd)
            self.lock_fd = None


def connect(address: Address) -> Any:
    connection = _Connection(address.database)
    connection.create_function("CRC32", 1, _crc32, deterministic=True)
    return connection


def _crc32(text: str | None) -> int | None:
    return None if text is None else zlib.crc32(text.encode())


def explain(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "database_read_denied"
    words = str(error)
    if words == REPLACED:
        return "database_lost"
    if "unable to open" in words or isinstance(error, FileNotFoundError):
        return "database_missing"
    if "no such table" in words or "no such column" in words:
        return "database_not_migrated"
    return "database_failed"


def try_lock(connection: Any, address: Address, idle_seconds: int) -> bool:
    """
    Lock the database's folder with ``flock``, which ends with the process, so a lost node never
    holds it.

    The file itself cannot be locked: closing any descriptor of it releases SQLite's own POSIX locks
    on it, and our other connection would then read an outdated write-ahead log.

    Raises:
        PermissionError: This user cannot read the folder.
        OSError: The folder does not exist, or its file system has no locks.
    """
    folder = os.path.dirname(os.path.realpath(address.database))
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        raise PermissionError(f"this user cannot read {folder}, which must be locked") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return False
        raise
    connection.lock_fd = fd
    return True
