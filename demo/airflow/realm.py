"""
A Kerberos realm with a service, for the demo with one Airflow.
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
from tests.support.kerberos.kdc import Kdc

if TYPE_CHECKING:
    from demo.airflow.warehouse import Warehouse

SERVICE = "HTTP/localhost@EXAMPLE.TEST"


def missing() -> list[str]:
    """
    Return the missing requirements for a task that uses a ticket.
    """
    return [*kerberos.missing(), *([] if speaks_kerberos() else ["curl with GSS-API"])]


def speaks_kerberos() -> bool:
    """
    Whether a curl with GSS-API is installed.
    """
    if shutil.which("curl") is None:
        return False
    return b"GSS-API" in subprocess.run(["curl", "--version"], capture_output=True).stdout


@dataclass
class Realm:
    """
    A KDC, and a service that requires its tickets.
    """

    settings: dict[str, str]
    """The settings of the sidecar."""
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
    Start the KDC and the service.

    Args:
        home: The folder for their files; created.
        stack: The exit stack that ends them.
    """
    from demo.airflow.warehouse import Warehouse  # gssapi is not on every machine

    kdc = stack.enter_context(Kdc(home / "kdc"))
    settings = kerberos.prepare(kdc, home, SERVICE, "1h")
    # The service runs in this process, and its replay cache is removed with the folder.
    os.environ["KRB5_CONFIG"] = settings["KRB5_CONFIG"]
    os.environ["KRB5RCACHENAME"] = f"file2:{home}/replay"
    return Realm(settings, stack.enter_context(Warehouse(home / "service.keytab")))
