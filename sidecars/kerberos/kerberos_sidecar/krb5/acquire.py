"""
Asks the KDCs for a ticket: each with its own short deadline, who answered last before the others.
"""

from __future__ import annotations

import time

from kerberos_sidecar.formats.keytab import Keytab
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.krb5.carry import PATIENCE, Patience, Unanswered, Way, carry, ways
from kerberos_sidecar.krb5.library import Krb5Error, Message, Request
from kerberos_sidecar.krb5.refusals import explain, hung, spoiled, unreachable

Favorites = dict[str, Way]
"""Which way the last answer came, by realm; shared by threads, as each entry is replaced whole."""


def acquire_ticket(
    principal: Principal, keytab: Keytab, favorites: Favorites, patience: Patience = PATIENCE
) -> bytes:
    """
    Return a new ticket, as a ccache.

    Blocks until a KDC answers or all had their time, without the interpreter's lock. Only from a
    thread: in the main one it would hold up signals.

    Raises:
        SidecarError: Why there is no ticket.
    """
    began = time.monotonic()
    try:
        with Request(str(principal), keytab.path) as request:
            _Asking(request, favorites, patience).run()
            return request.ccache()
    except Unanswered as error:
        match error.kind:
            case "silent":
                raise hung(principal, f" ({time.monotonic() - began:.0f} s)") from None
            case "garbage":
                raise spoiled(principal, error.said) from None
        raise unreachable(principal, error.said) from None
    except Krb5Error as error:
        raise explain(
            error.code,
            error.said,
            principal=principal,
            keytab=keytab.path,
            kvno=keytab.kvno_of(principal),
            after_seconds=time.monotonic() - began,
        ) from None


class _Asking:
    """
    The messages of one request.
    """

    def __init__(self, request: Request, favorites: Favorites, patience: Patience) -> None:
        self._request = request
        self._favorites = favorites
        self._patience = patience
        self._answered: Way | None = None

    def run(self) -> None:
        answer = b""
        while message := self._request.step(answer):
            found = ways(
                self._request.kdcs(message.realm),
                prefers_tcp=message.prefers_tcp,
                is_tcp_only=message.is_tcp_only,
            )
            if not found:
                # By DNS, or through a proxy for HTTPS: libkrb5 knows how.
                self._request.fetch()
                return
            answer = self._carry(message, found)

    def _carry(self, message: Message, found: list[Way]) -> bytes:
        favorite = self._favorites.get(message.realm)
        if favorite is not None and message.is_tcp_only:
            favorite = Way(favorite.host, favorite.port, "tcp")
        # Stable, so the others stay in the order of krb5.conf.
        found.sort(key=lambda way: way != favorite)
        has_favorite = self._answered is not None and found[0] == favorite
        way, answer = carry(message.content, found, self._patience, has_favorite=has_favorite)
        self._answered = self._favorites[message.realm] = way
        return answer
