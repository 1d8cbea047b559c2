"""
Remembers, beside the ccache, which keys the KDC refused: each refusal counts toward a lockout.

``.NAME.refused`` outlives restarts of the container. The daemon and ``check`` share it, so that
their tries count together. Consumers may be able to write it, so invalid content is ignored.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress

from kerberos_sidecar.formats.ccache import Ticket
from kerberos_sidecar.formats.keytab import Keytab
from kerberos_sidecar.formats.moment import iso
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.formats.regular import read_regular
from kerberos_sidecar.plan import lockout_wait
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.files import write_file

_SIZE_LIMIT_BYTES = 1 << 14
_REMEMBERED = 4


def keys_of(keytab: Keytab, principal: Principal) -> str:
    """
    Return text that changes with a principal's keys but does not reveal them.
    """
    keys = [key for key in keytab.keys if key.principal == principal]
    return " ".join(
        [str(principal), *(f"{k.kvno}/{k.enctype}/{k.added_at}/{k.trace}" for k in keys)]
    )


class Refused:
    """
    The refusals of one principal; used by one cycle thread at a time.

    Args:
        ccache: The ccache beside which the refusals are stored.
        window_seconds: How long the realm's policy counts a refusal; 0 for no limit.
    """

    def __init__(self, ccache: str, window_seconds: float) -> None:
        folder, name = os.path.split(ccache)
        self._path = os.path.join(folder, f".{name}.refused")
        self._window_seconds = window_seconds
        self._keys, self._at = self._read()

    def check(self, keytab: Keytab, principal: Principal, ticket: Ticket | None) -> None:
        """
        Raises:
            SidecarError: The KDC has refused these keys; more tries could lock the account.
        """
        keys, now = keys_of(keytab, principal), time.time()
        if wait_seconds := self.wait_seconds(keys, now, ticket.ends_at if ticket else None):
            held_back = SidecarError(
                "keytab_stale",
                f"the KDC has refused the key of {principal} (kvno {keytab.kvno_of(principal)}) in "
                f"{keytab.path}; to avoid locking the account, it is not tried again before "
                f"{iso(now + wait_seconds)}",
                "Export the keytab again: a new key is tried at once. KERBEROS_LOCKOUT_WINDOW "
                "sets the wait.",
            )
            held_back.retry_within_seconds = wait_seconds
            raise held_back

    def wait_seconds(self, keys: str, now: float, ends_at: float | None) -> float:
        """
        Return after how many seconds these keys may be tried.

        Args:
            keys: The result of :func:`keys_of`.
            now: Unix time.
            ends_at: When the published ticket expires; ``None`` without one.
        """
        # The clock may have been set back.
        at = [moment for moment in self._known(keys) if moment <= now]
        return lockout_wait(at, now, self._window_seconds, ends_at)

    def add(self, keys: str, now: float) -> None:
        """
        Remember that the KDC has refused these keys.
        """
        self._keys, self._at = keys, [*self._known(keys), now][-_REMEMBERED:]
        content = json.dumps({"keys": self._keys, "refused_at": self._at}).encode()
        with suppress(OSError):  # on a full volume, remembered until a restart
            write_file(self._path, content, 0o600, fsync=False)

    def clear(self) -> None:
        """
        Forget all refusals, because the KDC accepted the keys.
        """
        self._keys, self._at = "", []
        with suppress(OSError):
            os.unlink(self._path)

    def _known(self, keys: str) -> list[float]:
        """
        Return when these keys were refused, as remembered by this and other processes.
        """
        ours, theirs = (
            Counter(at if known == keys else ())
            for known, at in ((self._keys, self._at), self._read())
        )
        return sorted((ours | theirs).elements())

    def _read(self) -> tuple[str, list[float]]:
        try:
            facts = json.loads(read_regular(self._path, _SIZE_LIMIT_BYTES))
            at = sorted(float(moment) for moment in facts["refused_at"])
            return str(facts["keys"]), at[-_REMEMBERED:]
        except (OSError, ValueError, RecursionError, LookupError, TypeError, OverflowError):
            return "", []
