"""
A program that uses a ccache in a loop, as Airflow's tasks do, until its standard input ends.

``ccache_reader.py klist|acquire|context [SERVICE]`` prints ``{"reads": ..., "failures": [...]}``.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable


def main() -> None:
    """
    Read until standard input ends; the first reads finish before it is checked.
    """
    kind, *service = sys.argv[1:]
    readers: dict[str, Callable[..., Callable[[], object]]] = {
        "klist": klist,
        "acquire": acquire,
        "context": context,
    }
    read = readers[kind](*service)
    reads, failures = 0, []
    print("ready", flush=True)
    while True:
        for _ in range(5):
            reads += 1
            try:
                read()
            except Exception as error:  # noqa: BLE001 - a task would see any exception
                failures.append(f"{type(error).__name__}: {error}")
        if select.select([sys.stdin], [], [], 0)[0]:
            break
    print(json.dumps({"reads": reads, "failures": failures[:20], "failed": len(failures)}))


def klist() -> Callable[[], object]:
    """
    Do what probes and shell scripts do: check that the ticket is valid.
    """
    return lambda: subprocess.run(["klist", "-s"], check=True, capture_output=True)


def acquire() -> Callable[[], object]:
    """
    Do what every GSSAPI client does first: open and parse the ccache, and check its expiry.
    """
    import gssapi

    def read() -> None:
        credentials = gssapi.Credentials(usage="initiate", mechs=[gssapi.MechType.kerberos])
        assert credentials.lifetime > 0
        assert str(credentials.name).startswith("airflow")

    return read


def context(service: str) -> Callable[[], object]:
    """
    Do what a client of Hive, HDFS or a web service does: create a token for that service.
    """
    import gssapi

    name = gssapi.Name(service, gssapi.NameType.kerberos_principal)

    def read() -> None:
        mechanism = gssapi.MechType.kerberos
        token = gssapi.SecurityContext(name=name, mech=mechanism, usage="initiate").step()
        assert token

    return read


if __name__ == "__main__":
    main()
