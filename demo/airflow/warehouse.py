"""
A web service that answers only clients with a Kerberos ticket (RFC 4559).
"""

from __future__ import annotations

import base64
from pathlib import Path

import gssapi

from tests.support.http.loopback import Answer, LoopbackServer, Request


class Warehouse(LoopbackServer):
    """
    The service, with its own keytab.
    """

    def __init__(self, keytab: Path) -> None:
        super().__init__()
        store = {"keytab": f"FILE:{keytab}"}
        self._credentials = gssapi.Credentials(usage="accept", store=store)
        self.guests: list[str] = []
        """The accepted principals, in order."""

    def good_answer(self, request: Request) -> Answer:
        """
        Return the rows for a principal, or 401.
        """
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "negotiate":
            context = gssapi.SecurityContext(creds=self._credentials, usage="accept")
            try:
                reply = context.step(base64.b64decode(token))
            except gssapi.exceptions.GSSError:
                reply = None
            if context.complete:
                self.guests.append(str(context.initiator_name))
                proof = base64.b64encode(reply or b"").decode()
                return Answer(200, {"WWW-Authenticate": f"Negotiate {proof}"}, b"7 orders\n")
        return Answer(401, {"WWW-Authenticate": "Negotiate"}, b"who are you? ")
