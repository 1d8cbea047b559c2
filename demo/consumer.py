"""
A consumer of the ticket and the service that it uses, in one process.

Every 20 ms it performs a GSSAPI handshake with the ccache in KRB5CCNAME, as a client of Hive or a
web service does; the service side accepts it with its own keytab. For each handshake it prints a
JSON line with the error, or with an empty text.
"""

from __future__ import annotations

import json
import os
import sys
import time

import gssapi

KERBEROS = gssapi.MechType.kerberos


def main(service: str) -> None:
    """
    Wait for the ccache, then perform handshakes until killed.
    """
    name = gssapi.Name(service, gssapi.NameType.kerberos_principal)
    accepting = gssapi.Credentials(name=name, usage="accept", mechs=[KERBEROS])
    while not os.path.exists(os.environ["KRB5CCNAME"]):
        time.sleep(0.02)
    while True:
        error = ""
        try:
            shake_hands(name, accepting)
        except gssapi.exceptions.GSSError as failure:
            error = str(failure)
        print(json.dumps(error), flush=True)
        time.sleep(0.02)


def shake_hands(service: gssapi.Name, accepting: gssapi.Credentials) -> None:
    """
    Establish a security context on both sides.
    """
    client = gssapi.SecurityContext(name=service, mech=KERBEROS, usage="initiate")
    server = gssapi.SecurityContext(creds=accepting, usage="accept")
    answer = None
    while not client.complete:
        token = client.step(answer)
        answer = server.step(token) if token else None


if __name__ == "__main__":
    main(sys.argv[1])
