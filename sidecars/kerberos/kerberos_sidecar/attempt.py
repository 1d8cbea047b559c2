"""
One request for a ticket, in a thread of its own: it may outlive the cycle that began it.
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
    A request that is under way, or has come to its end.

    Args:
        cause: Why there is one.
        stamp: What the keytab was like.
        acquire: Returns the ccache, or raises; called in the thread.
        tell: Called in the thread once there is a result.

    Attributes:
        began_at: Seconds of the monotonic clock.
        seconds: How long it took, once there is a result.
        result: The ccache or the failure; ``None`` before there is one.
        is_late: Whether the cycle that began it was abandoned.
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
