"""Programs that use the ticket: curl, and Spark with Hadoop's client as documented for Java."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("gssapi", reason="gssapi is not compiled: make setup-test as root")

from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import PATH, Kdc
from tests.support.kerberos.site import Site
from tests.support.kerberos.spark import spark
from tests.support.kerberos.web_hdfs import WebHdfs
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[3] / "docs/how-to/read-a-ticket.md").read_text()
TICKETS = 5
LIFE = "20s"
# Hadoop waits a minute between two logins by default, longer than these tickets live.
OFTEN = (
    "<property><name>hadoop.kerberos.min.seconds.before.relogin</name><value>1</value></property>"
)


@pytest.fixture(scope="module")
def hdfs(kdc: Kdc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebHdfs]:
    """A service that has its own keytab and contacts no KDC."""
    keytab = tmp_path_factory.mktemp("hdfs") / "keytab"
    kdc.write_keytab(keytab, kdc.add_principal("HTTP/localhost"))
    with WebHdfs(keytab) as hdfs:
        yield hdfs


def consumer(site: Site) -> dict[str, str]:
    return {"PATH": PATH, "KRB5_CONFIG": str(site.config), "KRB5CCNAME": f"FILE:{site.ccache}"}


def block(kind: str, first: str) -> str:
    """Return the block of the page whose first line contains a word."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (found,) = (one for one in blocks if first in one.partition("\n")[0])
    return str(found)


@contextmanager
def reading(site: Site, hdfs: WebHdfs, core_site: str) -> Iterator[list[str]]:
    """Run Spark as the page says, with the paths of this site; enter after its first read."""
    jaas = site.folder / "jaas.conf"
    jaas.write_text(block("text", "com.sun.security.jgss.initiate"))
    options = block("text", "-Djava.security.krb5.conf")
    options = options.replace("/etc/krb5/krb5.conf", str(site.config))
    options = options.replace("/opt/airflow/jaas.conf", str(jaas))
    environment = consumer(site) | {"JAVA_TOOL_OPTIONS": " ".join(options.split())}
    # A new client for each read: a cached one would use its delegation token, not the ticket.
    each = "spark.hadoop.fs.webhdfs.impl.disable.cache=true"
    submitted = spark(
        site.folder,
        core_site + OFTEN,
        hdfs.url,
        environment,
        *("--conf", each, "--conf", block("text", "spark.").strip()),
    )
    site.publish()
    with submitted as said:
        wait_until(lambda: tickets(said) or failures(said), "the file was read", 240)
        assert [] == failures(said)
        assert f"user {site.principal} KERBEROS\n" in said
        yield said


def failures(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("failed: ")]


def tickets(said: list[str]) -> set[str]:
    """Return the end times of the tickets with which Spark read both lines of the file."""
    found = (re.fullmatch(r"ticket (\S+) rows 2\n", line) for line in said)
    return {match[1] for match in found if match}


@pytest.mark.timeout(900)
def test_spark_with_the_documented_core_site_uses_each_new_ticket(
    make_site: MakeSite, hdfs: WebHdfs, only_in_full: None
) -> None:
    """Hadoop logs in again at 80 % of a ticket's life; the sidecar replaces it at half of it."""
    site = make_site(LIFE)

    with reading(site, hdfs, block("xml", "<property>")) as said:
        wait_until(lambda: len(tickets(said)) > TICKETS, "five more tickets", 600)

        assert [] == failures(said)
    assert site.principal == hdfs.guests[-1]


@pytest.mark.timeout(900)
def test_spark_without_the_kinit_command_property_keeps_an_expired_ticket(
    make_site: MakeSite, hdfs: WebHdfs, only_in_full: None
) -> None:
    """The test above would prove nothing if Hadoop always used new tickets."""
    site = make_site("60s")  # time for Spark to start
    properties = re.findall(r"<property>.*?</property>", block("xml", "<property>"), re.DOTALL)
    others = [one for one in properties if "kinit.command" not in one]
    assert len(others) == len(properties) - 1

    with reading(site, hdfs, "".join(others)) as said:
        wait_until(lambda: failures(said), "its ticket has expired", 600)

    assert 1 == len(tickets(said))
    assert site.is_valid()


def test_curl_authenticates_with_the_ticket(here: Site, hdfs: WebHdfs) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("this machine has no curl: make setup-test as root")
    here.publish()
    url = f"http://localhost:{hdfs.port}/webhdfs/v1/?op=GETDELEGATIONTOKEN"

    done = subprocess.run(
        [curl, "--silent", "--negotiate", "--user", ":", url],
        env=consumer(here),
        capture_output=True,
        text=True,
        check=True,
    )

    assert '{"Token":' in done.stdout
    assert here.principal == hdfs.guests[-1]
