"""Programs that read the ccache never fail, whatever the writers do, and never change it."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import PATH, Kdc
from tests.support.kerberos.readers import HAS_JAVA, Kind, Reader, readers
from tests.support.kerberos.spark import spark
from tests.support.waiting import wait_until

KINDS: tuple[Kind, ...] = ("klist", "acquire", "context", "java")


@pytest.fixture(scope="module")
def service(kdc: Kdc) -> str:
    """A service for which readers obtain tickets."""
    return kdc.add_principal("HTTP/consumer.example.test")


def kinds() -> tuple[Kind, ...]:
    """Return the kinds of readers that this machine can run."""
    return KINDS if HAS_JAVA else KINDS[:-1]


def assert_all_well(found: list[Reader]) -> Counter[Kind]:
    """Assert that no read failed; return the number of reads per kind."""
    for reader in found:
        reader.stop()
        print(f"{reader.kind}: {reader.reads} reads, {reader.failed} failed")
    assert {} == {reader.kind: reader.failures for reader in found if reader.failed}
    assert all(reader.reads for reader in found)
    return Counter({reader.kind: reader.reads for reader in found})


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("writers", [1, 2])
def test_no_read_fails_while_sidecars_replace_the_ccache_every_second(
    make_site: MakeSite, service: str, counts: Counts, writers: int
) -> None:
    """
    With tickets of 16 s many reads fall into the second half of a life. In a folder of their group,
    as `fsGroup` sets it, writers with different uids rename over each other's files.
    """
    site = make_site("16s")
    site.ccache.parent.chmod(0o2770)
    users = [site.as_user(50_000 + 10_000 * number) for number in range(writers)]
    daemons = [site.publish(program=user, INTERVAL="1s") for user in users]
    sizes, inodes, owners, reads = set[int](), set[int](), set[int](), Counter[Kind]()

    while reads.total() < counts.ticket_reads or min(reads.values()) <= 10 or len(inodes) <= 3:
        with readers(site.folder / "bin", site.ccache, site.config, kinds(), service) as found:
            ends_at = time.monotonic() + 10
            while time.monotonic() < ends_at:
                status = site.ccache.stat()
                sizes.add(status.st_size)
                inodes.add(status.st_ino)
                owners.add(status.st_uid)
                time.sleep(0.05)
            reads += assert_all_well(found)

    assert (1, writers) == (len(sizes), len(owners)), "a reader changed the size"
    for daemon in daemons:
        assert daemon.find_events("cycle_failed") == []
        daemon.terminate()
    assert [] == site.leftovers()


def test_no_read_fails_when_the_kdc_recovers_before_the_ticket_expires(
    make_site: MakeSite, running_kdc: Kdc, service: str
) -> None:
    """The KDC is down for 15 s of the ticket's 20; readers use the same ticket all that time."""
    site, began = make_site("20s"), time.time()
    daemon = site.publish()
    expiry, size = site.expiry(), site.ccache.stat().st_size
    running_kdc.stop()
    offline: tuple[Kind, ...] = ("klist", "acquire")
    with readers(site.folder / "bin", site.ccache, site.config, offline, service) as found:
        wait_until(lambda: time.time() > (began + 3 * expiry) / 4, "its last quarter")
        assert site.ccache.stat().st_size == size
        running_kdc.start()
        wait_until(lambda: site.expiry() > expiry, "a new ticket")
        assert_all_well(found)

    assert site.ccache.stat().st_size == size
    assert daemon.get("/readyz").status == 200


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
