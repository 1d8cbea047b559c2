"""
One request for a ticket, in a separate thread that may outlive the cycle that started it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kerberos_sidecar.formats.keytab import Keytab
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.plan import Cause
from kerberos_sidecar.source import Stamp


class Attempt:
    """
    A running or finished request for a ticket.

    Args:
        cause: Why the ticket is due.
        stamp: The stamp of the keytab at the start.
        acquire: Returns the ccache, or raises; called in the thread.
        tell: Called in the thread after the result is set.

    Attributes:
        began_at: Seconds of the monotonic clock.
        zero_at: The Unix time at which the monotonic clock was 0, by the clock at the start.
        seconds: The duration of a finished request.
        result: The ccache or the failure; ``None`` while the request runs.
        is_late: Whether the cycle that started it was abandoned.
    """

    def __init__(
        self,
        principal: Principal,
        keytab: Keytab,
        stamp: Stamp,
        cause: Cause,
        acquire: Callable[[], bytes],
        tell: Callable[[], object],
    ) -> None:
        self.principal = principal
        self.keytab = keytab
        self.stamp = stamp
        self.cause: Cause = cause
        self.began_at = time.monotonic()
        self.zero_at = time.time() - self.began_at
        self.seconds = 0.0
        self.result: bytes | BaseException | None = None
        self.is_late = False
        self._acquire = acquire
        self._tell = tell
        threading.Thread(target=self._run, name=f"ask {principal}", daemon=True).start()

    def _run(self) -> None:
        result: bytes | BaseException
        try:
            result = self._acquire()
        except BaseException as error:  # noqa: BLE001 - the cycle decides
            result = error
        self.seconds = time.monotonic() - self.began_at
        self.result = result
        self._tell()
