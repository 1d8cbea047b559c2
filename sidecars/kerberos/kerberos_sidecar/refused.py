"""
Remembers, beside the ccaches, which keys the KDC refused: each refusal counts toward a lockout.

``.NAME.refused`` outlives restarts of the container. The daemon and ``check`` share it, so that
their tries count together. Consumers may be able to write it, so invalid content is ignored.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from typing import Self

from kerberos_sidecar.formats.ccache import Ticket
from kerberos_sidecar.formats.keytab import Keytab
from kerberos_sidecar.formats.moment import iso
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.plan import lockout_wait
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.files import read_file, write_file

_SIZE_LIMIT_BYTES = 1 << 16
_REMEMBERED = 32

Refusals = Counter[tuple[float, str]]
"""The Unix time of each refusal, and the result of :func:`keys_of`."""


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
    The refusals of one account; used by one cycle thread at a time.

    An account can have several ccaches, and several keytabs, whose wrong keys count together.

    Args:
        ccache: A ccache beside which the refusals are stored.
        window_seconds: How long the realm's policy counts a refusal; 0 for no limit.
    """

    def __init__(self, ccache: str, window_seconds: float) -> None:
        self._paths: list[str] = []
        self._window_seconds = window_seconds
        self._refusals: Refusals = Counter()
        self.beside(ccache)

    def beside(self, ccache: str) -> Self:
        """
        Store the refusals beside this ccache too: another one's folder may not be writable.
        """
        folder, name = os.path.split(ccache)
        path = os.path.join(folder, f".{name}.refused")
        if path not in self._paths:
            self._paths.append(path)
        return self

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

        Refusals of other keys count only after the first of these: new keys are tried at once.

        Args:
            keys: The result of :func:`keys_of`.
            now: Unix time.
            ends_at: When the published ticket expires; ``None`` without one.
        """
        # The clock may have been set back.
        known = [one for one in sorted(self._known().elements()) if one[0] <= now]
        first = next((index for index, one in enumerate(known) if one[1] == keys), len(known))
        return lockout_wait([at for at, _ in known[first:]], now, self._window_seconds, ends_at)

    def add(self, keys: str, now: float) -> None:
        """
        Remember that the KDC has refused these keys.
        """
        self._refusals = _newest(self._known() + Counter([(now, keys)]))
        by_keys: dict[str, list[float]] = {}
        for at, tried in sorted(self._refusals.elements()):
            by_keys.setdefault(tried, []).append(at)
        content = json.dumps({"refused": by_keys}).encode()
        for path in self._paths:
            with suppress(OSError):  # on a full volume, remembered until a restart
                write_file(path, content, 0o600, fsync=False)

    def clear(self) -> None:
        """
        Forget all refusals, because the KDC accepted a key and so counts from 0.
        """
        self._refusals.clear()
        for path in self._paths:
            with suppress(OSError):
                os.unlink(path)

    def _known(self) -> Refusals:
        """
        Return the refusals that this and other processes remember.
        """
        known = self._refusals
        for path in self._paths:
            known = known | _read(path)
        return known


def refused_of(
    known: dict[str, Refused], principal: Principal, ccache: str, window_seconds: float
) -> Refused:
    """
    Return the refusals of a principal's account, stored beside this ccache too.

    Args:
        known: Refusals by account; a new account is added.
        window_seconds: As for :class:`Refused`.
    """
    account = principal.account
    if account not in known:
        known[account] = Refused(ccache, window_seconds)
    return known[account].beside(ccache)


def _newest(refusals: Refusals) -> Refusals:
    return Counter(sorted(refusals.elements())[-_REMEMBERED:])


def _read(path: str) -> Refusals:
    try:
        facts = json.loads(read_file(path, _SIZE_LIMIT_BYTES))
        refused = dict(facts["refused"]).items()
        found = Counter((float(at), str(keys)) for keys, times in refused for at in times)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, OverflowError):
        return Counter()
    return _newest(found)
