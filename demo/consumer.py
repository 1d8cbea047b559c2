"""
A consumer of the ticket, and the service that it talks to, in one process.

Every 20 ms it makes a GSSAPI handshake from the ccache that KRB5CCNAME names, as a client of Hive
or of a web service does; the service's side accepts it with a keytab of its own. It prints one
JSON line for each: the error, or an empty text.
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
    Shake hands until killed, from the first ccache on.
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
    Make a security context on both sides.
    """
    client = gssapi.SecurityContext(name=service, mech=KERBEROS, usage="initiate")
    server = gssapi.SecurityContext(creds=accepting, usage="accept")
    answer = None
    while not client.complete:
        token = client.step(answer)
        answer = server.step(token) if token else None


if __name__ == "__main__":
    main(sys.argv[1])
