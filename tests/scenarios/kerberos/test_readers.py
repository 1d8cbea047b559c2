"""
Programs that read the ccache never fail, whatever the writers do, and never change it.
"""

import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import Kdc
from tests.support.kerberos.readers import HADOOP_JARS, HAS_JAVA, Kind, readers
from tests.support.waiting import wait_until

PAGE = Path(__file__).parents[3] / "docs/how-to/read-a-ticket.md"
KINDS: tuple[Kind, ...] = ("klist", "acquire", "context")


@pytest.mark.timeout(3_600)
def test_no_read_fails_while_sidecars_replace_the_ccache_every_second(
    make_site: MakeSite,
    kdc: Kdc,
    counts: Counts,
) -> None:
    """
    With tickets of 16 s many reads fall into the second half of a life. In a folder of
    their group, as `fsGroup` sets it, writers with different uids rename over each
    other's files.
    """
    site = make_site("16s")
    kinds = (*KINDS, "java") if HAS_JAVA else KINDS
    service = kdc.add_principal("HTTP/readers.example.test")
    site.ccache.parent.chmod(0o2770)
    daemons = [
        site.publish(program=site.as_user(uid), INTERVAL="1s")
        for uid in (50_000, 60_000)
    ]
    sizes = set[int]()
    inodes = set[int]()
    owners = set[int]()
    reads = Counter[Kind]()

    while (
        reads.total() < counts.ticket_reads
        or min(reads.values()) <= 10
        or len(inodes) <= 3
    ):
        with readers(
            site.folder / "bin", site.ccache, site.config, kinds, service
        ) as found:
            ends_at = time.monotonic() + 5
            while time.monotonic() < ends_at:
                status = site.ccache.stat()
                sizes.add(status.st_size)
                inodes.add(status.st_ino)
                owners.add(status.st_uid)
                time.sleep(0.05)
            for reader in found:
                reader.stop()
            assert {} == {
                reader.kind: reader.failures for reader in found if reader.failed
            }
            reads += Counter({reader.kind: reader.reads for reader in found})

    assert (1, 2) == (len(sizes), len(owners)), "a reader changed the size"
    for daemon in daemons:
        assert daemon.find_events("cycle_failed") == []
        daemon.terminate()
    assert [] == site.leftovers()


def test_hadoop_logs_in_again_before_its_ticket_expires(
    make_site: MakeSite, kdc: Kdc
) -> None:
    """
    With the properties of the page; without them, its login expires, and only its own
    calls read the ccache again.
    """
    if not HADOOP_JARS:
        pytest.skip('needs Hadoop: eval "$(scripts/test-programs hadoop)"')
    site = make_site("16s")
    shutil.copytree(HADOOP_JARS, site.folder / "jars")
    service = kdc.add_principal("hadoop/localhost")
    kdc.copy_keys(site.folder / "service.keytab", service).chmod(0o644)
    configured = site.folder / "configured"
    configured.mkdir()
    properties = re.findall("<property>.*?</property>", PAGE.read_text(), re.DOTALL)
    (configured / "core-site.xml").write_text(
        f"<configuration>{''.join(properties)}</configuration>"
    )
    daemon = site.publish()

    with (
        readers(configured, site.ccache, site.config, ("hadoop",), service) as (one,),
        readers(
            site.folder / "bin", site.ccache, site.config, ("hadoop",), service
        ) as (other,),
    ):
        wait_until(
            lambda: len(daemon.find_events("ticket_acquired")) > 5,
            "the ticket is replaced",
            120,
        )
        one.stop()
        other.stop()

    assert () == one.failures
    assert {
        "java.lang.IllegalStateException: the ticket of the login has expired"
    } == set(other.failures)
    assert other.failed < other.reads
