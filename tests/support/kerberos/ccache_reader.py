"""
A program that uses a ccache in a loop, as Airflow's tasks do, until its standard input
ends.

``ccache_reader.py klist|acquire|context [SERVICE]`` prints ``{"reads": ..., "failures":
[...]}``.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable

Read = Callable[[], object]


def main() -> None:
    """
    Read in batches until standard input ends, checked after each batch.
    """
    kind, *service = sys.argv[1:]
    readers: dict[str, Callable[..., Read]] = {
        "klist": klist,
        "acquire": acquire,
        "context": context,
    }
    read = readers[kind](*service)
    reads = 0
    failures = []
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
    print(
        json.dumps({"reads": reads, "failures": failures[:20], "failed": len(failures)})
    )


def klist() -> Read:
    """
    Return a read that checks the ticket, as probes and shell scripts do.
    """
    return lambda: subprocess.run(["klist", "-s"], check=True, capture_output=True)


def acquire() -> Read:
    """
    Return a read that every GSSAPI client does first: parse the ccache and check its
    expiry.
    """
    import gssapi

    def read() -> None:
        credentials = gssapi.Credentials(
            usage="initiate", mechs=[gssapi.MechType.kerberos]
        )
        assert credentials.lifetime > 0
        assert str(credentials.name).startswith("airflow")

    return read


def context(service: str) -> Read:
    """
    Return a read that creates a token for a service, as clients of Hive, HDFS or the
    web do.
    """
    import gssapi

    name = gssapi.Name(service, gssapi.NameType.kerberos_principal)

    def read() -> None:
        assert gssapi.SecurityContext(
            name=name, mech=gssapi.MechType.kerberos, usage="initiate"
        ).step()

    return read


if __name__ == "__main__":
    main()
