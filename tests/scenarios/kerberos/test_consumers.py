"""Programs that use the ticket as documented: Spark with Hadoop's client."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import PATH
from tests.support.kerberos.spark import spark
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[3] / "docs/how-to/read-a-ticket.md").read_text()
# Hadoop waits a minute between two logins by default, longer than these tickets live.
OFTEN = (
    "<property><name>hadoop.kerberos.min.seconds.before.relogin</name><value>1</value></property>"
)


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
    environment = {
        "PATH": PATH,
        "KRB5_CONFIG": str(site.config),
        "KRB5CCNAME": f"FILE:{site.ccache}",
        "JAVA_TOOL_OPTIONS": " ".join(options.split()),
    }
    core_site, conf = block("xml", "<property>") + OFTEN, block("text", "spark.").strip()
    site.publish()

    with spark(site.folder, core_site, environment, "--conf", conf) as lines:

        def said(word: str) -> set[str]:
            return {line for line in lines() if line.startswith(word)}

        wait_until(lambda: len(said("ticket ")) > 5 or said("failed: "), "six tickets", 600)
        assert set() == said("failed: ")
        assert f"user {site.principal} KERBEROS" in lines()
