"""
The page about Java, word by word, with Hadoop's own client.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.hadoop import HadoopClient, hadoop_client
from tests.support.kdc import PATH
from tests.support.site import Site
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[3] / "docs/how-to/use-the-ticket-from-java.md").read_text()
TICKETS = 5
LIFE = "20s"


def block(kind: str, first: str) -> str:
    """The block of the page that has a word in its first line."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (found,) = (one for one in blocks if first in one.partition("\n")[0])
    return str(found)


@contextmanager
def client(site: Site, core_site: str) -> Iterator[HadoopClient]:
    """A Hadoop client set up as the page says, with the paths of this site."""
    name = f"hive/{site.principal.partition('@')[0]}.example.test"
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
    service = site.kdc.add_principal(name)
    with hadoop_client(site.folder, core_site, service, environment) as found:
        wait_until(lambda: found.tickets, "the client has logged in", 120)
        yield found


@pytest.mark.timeout(900)
def test_hadoop_takes_each_new_ticket_with_the_line_of_the_page(
    make_site: MakeSite, only_in_full: None
) -> None:
    """Hadoop renews at 80 % of a ticket's life, the sidecar at half of it."""
    site = make_site(LIFE)
    site.publish()

    with client(site, block("xml", "<property>")) as found:
        wait_until(lambda: len(found.tickets) > TICKETS, "five tickets more", 600)

    assert [] == found.failures
    assert any(f"user {site.principal} KERBEROS" in line for line in found.said)


@pytest.mark.timeout(900)
def test_without_that_line_its_ticket_ends_beside_a_fresh_one(
    make_site: MakeSite, only_in_full: None
) -> None:
    """The test above would prove nothing if Hadoop took new tickets in any case."""
    site = make_site(LIFE)
    site.publish()
    properties = re.findall(r"<property>.*?</property>", block("xml", "<property>"), re.DOTALL)
    others = [one for one in properties if "kinit.command" not in one]
    assert len(others) == len(properties) - 1

    with client(site, "".join(others)) as found:
        wait_until(lambda: found.failures, "its ticket has ended", 600)

    assert 1 == len(found.tickets)
    assert site.is_valid()
