"""
A Kerberos realm with a web service that answers only clients with a ticket (RFC 4559).
"""

import base64
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

from demo.kerberos import missing as missing_for_kdc
from tests.support.http.loopback import Answer, LoopbackServer, Request
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.site import Site, site


def missing() -> list[str]:
    """
    Return the missing requirements for a task that uses a ticket.
    """
    said = b""
    if shutil.which("curl"):
        said = subprocess.run(["curl", "--version"], capture_output=True).stdout
    return [*missing_for_kdc(), *([] if b"GSS-API" in said else ["curl with GSS-API"])]


class Warehouse(LoopbackServer):
    """
    The service, with its own keytab.
    """

    def __init__(self, here: Site, keytab: Path) -> None:
        super().__init__()
        self.here = here
        self.keytab = keytab
        self.guests: list[str] = []
        """The accepted principals, in order."""

    def of_tasks(self) -> dict[str, str]:
        """
        Return the variables of a consumer of the ticket.
        """
        return {
            "KRB5_CONFIG": str(self.here.config),
            "KRB5CCNAME": str(self.here.ccache),
            "WAREHOUSE_URL": f"http://localhost:{self.port}/",
        }

    def good_answer(self, request: Request) -> Answer:
        """
        Return the rows for a principal, or 401.
        """
        import gssapi  # not on every machine

        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "negotiate":
            store = {"keytab": f"FILE:{self.keytab}"}
            own = gssapi.Credentials(usage="accept", store=store)
            context = gssapi.SecurityContext(creds=own, usage="accept")
            proof = base64.b64encode(
                context.step(base64.b64decode(token)) or b""
            ).decode()
            self.guests.append(str(context.initiator_name))
            return Answer(
                200, {"WWW-Authenticate": f"Negotiate {proof}"}, b"7 orders\n"
            )
        return Answer(401, {"WWW-Authenticate": "Negotiate"}, b"who are you? ")


def open_realm(home: Path, stack: ExitStack) -> Warehouse:
    """
    Start the KDC and the service.
    """
    kdc = stack.enter_context(Kdc(home))
    here = stack.enter_context(site(kdc, "airflow"))
    keytab = kdc.write_keytab(
        home / "service.keytab", kdc.add_principal("HTTP/localhost")
    )
    # The service runs in this process, and its replay cache is removed with the folder.
    os.environ["KRB5_CONFIG"] = str(here.config)
    os.environ["KRB5RCACHENAME"] = f"file2:{home}/replay"
    return stack.enter_context(Warehouse(here, keytab))
