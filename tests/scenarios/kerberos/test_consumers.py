"""Programs that use the ticket as documented: Spark with Hadoop's client, a script."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import PATH, Kdc
from tests.support.kerberos.site import Site
from tests.support.kerberos.spark import spark
from tests.support.waiting import wait_until

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"
PAGE = (HOW_TO / "use-the-ticket-from-java.md").read_text()
# Hadoop waits a minute between two logins by default, longer than these tickets live.
OFTEN = (
    "<property><name>hadoop.kerberos.min.seconds.before.relogin</name><value>1</value></property>"
)


def consumer(site: Site) -> dict[str, str]:
    return {"PATH": PATH, "KRB5_CONFIG": str(site.config), "KRB5CCNAME": f"FILE:{site.ccache}"}


def block(kind: str, first: str) -> str:
    """Return the block of the page whose first line contains a word."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (found,) = (one for one in blocks if first in one.partition("\n")[0])
    return str(found)


@pytest.mark.timeout(900)
def test_spark_with_the_documented_core_site_uses_each_new_ticket(
    make_site: MakeSite, only_in_full: None
) -> None:
    """Hadoop logs in again at 80 % of a ticket's life; the sidecar replaces it at half of it."""
    site = make_site("20s")
    jaas = site.folder / "jaas.conf"
    jaas.write_text(block("text", "com.sun.security.jgss.initiate"))
    options = block("text", "-Djava.security.krb5.conf")
    options = options.replace("/etc/krb5/krb5.conf", str(site.config))
    options = options.replace("/opt/airflow/jaas.conf", str(jaas))
    environment = consumer(site) | {"JAVA_TOOL_OPTIONS": " ".join(options.split())}
    core_site, conf = block("xml", "<property>") + OFTEN, block("text", "spark.").strip()
    site.publish()

    with spark(site.folder, core_site, environment, "--conf", conf) as said:

        def is_done() -> bool:
            return len({line for line in said if line.startswith("ticket ")}) > 5 or failed() != []

        def failed() -> list[str]:
            return [line for line in said if line.startswith("failed: ")]

        wait_until(is_done, "it logged in with six tickets", 600)
        assert [] == failed()
        assert f"user {site.principal} KERBEROS\n" in said


def test_the_documented_check_tells_each_fault_of_a_consumer(here: Site, kdc: Kdc) -> None:
    """It runs beside an `airflow` that returns two settings and a warning, as the real one does."""
    page = (HOW_TO / "find-out-why-there-is-no-ticket.md").read_text()
    (script,) = re.findall(r"<<'CHECK'\n(.*?)^CHECK$", page, re.DOTALL | re.MULTILINE)
    service, airflow = kdc.add_principal("HTTP/checked"), here.folder / "bin" / "airflow"
    airflow.parent.mkdir(exist_ok=True)
    asked = f'[ "$*" = "config get-value core security" ] && echo $SECURITY || echo {here.ccache}'
    airflow.write_text(f"#!/bin/sh\necho a warning\n{asked}\n")
    airflow.chmod(0o755)
    here.publish()

    def check(**more: str) -> tuple[int, str]:
        path = {"PATH": f"{airflow.parent}:{PATH}", "SECURITY": "", "SPN": service}
        environment = consumer(here) | path | more
        done = subprocess.run(
            ["bash", "-s"], env=environment, input=script, text=True, capture_output=True
        )
        return done.returncode, done.stdout + done.stderr

    away, nobody = "FILE:/nonexistent/ccache", "HTTP/nobody.example.test"
    for more, code, expected in (
        ({}, 0, f"Airflow uses FILE:{here.ccache}\n"),
        ({}, 0, f"{service}: kvno = "),
        ({"SECURITY": "kerberos", "KRB5CCNAME": away}, 0, f"Airflow uses {here.ccache}\n"),
        ({"KRB5CCNAME": away}, 1, "/nonexistent/ccache"),
        ({"SPN": nobody}, 1, "not found in Kerberos database"),
    ):
        found, said = check(**more)
        assert (code, True) == (found, expected in said), said
