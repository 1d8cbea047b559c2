"""
A Kerberos realm with a service, for as long as one Airflow plays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo import kerberos
from tests.support.kdc import Kdc

if TYPE_CHECKING:
    from demo.airflow.warehouse import Warehouse

SERVICE = "HTTP/localhost@EXAMPLE.TEST"


def missing() -> list[str]:
    """
    Return what this machine lacks for a task that uses a ticket.
    """
    return [*kerberos.missing(), *([] if speaks_kerberos() else ["curl with GSS-API"])]


def speaks_kerberos() -> bool:
    """
    Whether there is a curl that can.
    """
    if shutil.which("curl") is None:
        return False
    return b"GSS-API" in subprocess.run(["curl", "--version"], capture_output=True).stdout


@dataclass
class Realm:
    """
    A KDC, and a service that wants tickets of it.
    """

    settings: dict[str, str]
    """Of the sidecar."""
    warehouse: Warehouse

    def of_tasks(self) -> dict[str, str]:
        """
        Return the variables of a consumer of the ticket.
        """
        return {
            "KRB5_CONFIG": self.settings["KRB5_CONFIG"],
            "KRB5CCNAME": self.settings["KERBEROS_CCACHE"],
            "WAREHOUSE_URL": f"http://localhost:{self.warehouse.port}/",
        }


def open_realm(home: Path, stack: ExitStack) -> Realm:
    """
    Start KDC and service.

    Args:
        home: For all their files; made.
        stack: What ends them.
    """
    from demo.airflow.warehouse import Warehouse  # gssapi is not on every machine

    kdc = stack.enter_context(Kdc(home / "kdc"))
    settings = kerberos.prepare(kdc, home, SERVICE, "1h")
    # The service is in this process, and its replay cache goes with the folder.
    os.environ["KRB5_CONFIG"] = settings["KRB5_CONFIG"]
    os.environ["KRB5RCACHENAME"] = f"file2:{home}/replay"
    return Realm(settings, stack.enter_context(Warehouse(home / "service.keytab")))
