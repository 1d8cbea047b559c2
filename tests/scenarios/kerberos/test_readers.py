"""Readers never fail, whatever the writers do, and never change the ccache."""

import time
from collections import Counter

import pytest

from tests.conftest import Counts
from tests.scenarios.kerberos.conftest import MakeSite
from tests.support.kerberos.kdc import Kdc, run_client
from tests.support.kerberos.readers import HAS_JAVA, Kind, Reader, readers
from tests.support.kerberos.site import Site
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
    """With tickets of 16 s many reads fall into the second half of a life."""
    site = make_site("16s")
    site.ccache.parent.chmod(0o2770)
    daemons = [site.publish(INTERVAL="1s") for _ in range(writers)]
    sizes, inodes, reads = set[int](), set[int](), Counter[Kind]()

    while reads.total() < counts.ticket_reads or min(reads.values()) <= 10 or len(inodes) <= 3:
        with readers(site.folder / "bin", site.ccache, site.config, kinds(), service) as found:
            ends_at = time.monotonic() + 10
            while time.monotonic() < ends_at:
                status = site.ccache.stat()
                sizes.add(status.st_size)
                inodes.add(status.st_ino)
                time.sleep(0.05)
            reads += assert_all_well(found)

    assert 1 == len(sizes), "a reader changed the size"
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


def test_a_reader_in_another_group_cannot_read_the_ccache(here: Site) -> None:
    """The tests above would prove less if every user could read the ccache."""
    here.ccache.parent.chmod(0o755)
    here.publish()

    alien = run_client(
        ["setpriv", "--reuid=50001", "--regid=50001", "--clear-groups", "klist", "-s"],
        here.config,
        here.ccache,
    )

    assert alien.returncode != 0
