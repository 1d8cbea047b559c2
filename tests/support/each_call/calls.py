"""
Counts the calls of a process that change or open files, and lets the n-th one fail.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

# Calls that open or change something; reading alone leaves nothing half done.
NAMES = """
    chmod chown fchmod fchown fdatasync fsync ftruncate link mkdir open pwrite remove
    rename replace rmdir symlink truncate unlink utime write
""".split()  # noqa: SIM905 - a list of words
CRASHED = 77
"""The exit code of a process that ends in the middle of a call, as by SIGKILL."""


class Calls:
    """
    The calls of the main thread, which runs the cycles, while they are counted.

    Attributes:
        count: How many there were since :meth:`arm`.
        fired: The call that failed: its name and its first argument; empty if none did.
    """

    def __init__(self) -> None:
        self.count = 0
        self.fired = ""
        self._at = 0
        self._kind = ""
        self._revoke: Callable[[], object] = lambda: None
        self._is_armed = False
        self._main = threading.get_ident()
        for name in NAMES:
            setattr(os, name, self._wrapped(getattr(os, name), name))

    def arm(self, at: int, kind: str, revoke: Callable[[], object]) -> None:
        """
        Count from now on, and let call number `at` fail; 0: none.

        Args:
            kind: ``crash``, ``revoke``, or the name of an error such as ``EIO``.
            revoke: Revokes the fence of the cycle.
        """
        self.count = 0
        self.fired = ""
        self._at = at
        self._kind = kind
        self._revoke = revoke
        self._is_armed = True

    def disarm(self) -> None:
        """
        Let everything work again.
        """
        self._is_armed = False

    def _wrapped(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            is_ours = self._is_armed and threading.get_ident() == self._main
            is_output = name == "write" and arguments[0] in (1, 2)
            if is_ours and not is_output:
                self._meet(name, arguments[0])
            return real(*arguments, **more)

        return call

    def _meet(self, name: str, subject: object) -> None:
        self.count += 1
        if self.count != self._at:
            return
        self.fired = f"{name}({subject!r})"
        if self._kind == "crash":
            os._exit(CRASHED)
        elif self._kind == "revoke":
            self._revoke()
        else:
            number = getattr(errno, self._kind)
            raise OSError(number, os.strerror(number), str(subject))
