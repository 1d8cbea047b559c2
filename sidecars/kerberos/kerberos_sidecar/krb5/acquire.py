"""
Asks the KDCs for a ticket, each with a short deadline, first the KDC that answered last.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

from kerberos_sidecar.formats.keytab import Keytab
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.krb5.carry import PATIENCE, Patience, Unanswered, carry, ways
from kerberos_sidecar.krb5.kdcs import Kdcs, Way
from kerberos_sidecar.krb5.library import Krb5Error, Message, Request
from kerberos_sidecar.krb5.names import Undecided, addresses, kdcs_by_dns
from kerberos_sidecar.krb5.refusals import explain, hung, spoiled, unreachable
from kerberos_sidecar.settings import Settings


def acquire_ticket(
    principal: Principal,
    keytab: Keytab,
    settings: Settings,
    kdcs: Kdcs,
    patience: Patience = PATIENCE,
) -> bytes:
    """
    Return a new ticket, as a ccache.

    Blocks, without holding the GIL, until a KDC answers or every KDC has timed out. Call it from a
    worker thread: in the main thread it would delay signal handlers.

    Raises:
        SidecarError: The ticket could not be acquired; the reason is the cause.
    """
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            request = Request(stack, str(principal), keytab.path, settings)
            _Asking(request, kdcs, patience).run()
            return request.ccache()
    except Unanswered as error:
        match error.kind:
            case "silent":
                raise hung(principal, f" within {time.monotonic() - began:.0f} s") from None
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
    The exchange of messages for one ticket request.
    """

    def __init__(self, request: Request, kdcs: Kdcs, patience: Patience) -> None:
        self._request = request
        self._kdcs = kdcs
        self._patience = patience
        self._answer_seconds: float | None = None
        self._by_dns: dict[str, list[Way]] = {}

    def run(self) -> None:
        answer = b""
        while message := self._request.step(answer):
            found = self._find(message)
            if not found:
                # No KDC was found, or it is behind an HTTPS proxy: libkrb5 handles both itself.
                self._request.fetch()
                return
            answer = self._carry(message, found)

    def _find(self, message: Message) -> list[Way] | None:
        """
        Return the ways to the KDCs of a realm; empty or ``None`` if libkrb5 must find them.
        """
        named = self._request.kdcs(message.realm)
        if named or not self._request.uses_dns():
            return ways(named, prefers_tcp=message.prefers_tcp, is_tcp_only=message.is_tcp_only)
        if message.realm not in self._by_dns:
            self._by_dns[message.realm] = self._ask_dns(message.realm) or []
        found = self._by_dns[message.realm]
        if message.is_tcp_only:
            return [way for way in found if way.transport == "tcp"]
        return sorted(found, key=lambda way: (way.transport == "udp") == message.prefers_tcp)

    def _ask_dns(self, realm: str) -> list[Way] | None:
        """
        Raises:
            Unanswered: DNS fails, and no earlier result is known.
        """
        try:
            found = kdcs_by_dns(realm, takes_uris=self._request.uses_uri_records())
        except Undecided as error:
            if before := self._kdcs.found.get(realm):
                return before
            raise Unanswered("refused", str(error)) from None
        self._kdcs.found[realm] = found or []
        return found

    def _carry(self, message: Message, found: list[Way]) -> bytes:
        favorite = self._kdcs.favorites.get(message.realm)
        if favorite is not None and message.is_tcp_only:
            favorite = Way(favorite.host, favorite.port, "tcp")
        self._kdcs.keep(message.realm, found)
        # A stable sort: the remaining KDCs stay in the order of krb5.conf.
        found.sort(key=lambda way: way != favorite)
        patience, first_seconds = self._patience, 0.0
        if self._answer_seconds is not None and found[0] == favorite:
            share_seconds = patience.favorite_share * self._answer_seconds
            first_seconds = max(patience.favorite_seconds, share_seconds)
        hear = partial(self._kdcs.hear, message.realm)
        look_up = partial(addresses, last=self._kdcs.addresses)
        way, answer, self._answer_seconds = carry(
            message.content, found, patience, hear, look_up, first_seconds=first_seconds
        )
        self._kdcs.favorites[message.realm] = way
        return answer
