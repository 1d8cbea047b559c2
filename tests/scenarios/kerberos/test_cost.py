"""The resources that the sidecar uses: memory, threads, processes, descriptors, requests."""

from pathlib import Path

from tests.support.kerberos.site import Site
from tests.support.machine.children import children_so_far
from tests.support.waiting import wait_until

UNCHANGED = 'sidecar_cycles_total{result="unchanged",sidecar="kerberos"}'


def test_many_tickets_leak_no_process_descriptor_thread_or_memory(here: Site) -> None:
    daemon = here.publish()
    here.refresh(daemon)
    daemon.get("/")
    daemon.get("/metrics")
    before_mib = daemon.rss_mib()

    def counted() -> tuple[int, int]:
        process = Path(f"/proc/{daemon.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    descriptors, threads = counted()
    for _ in range(30):
        here.refresh(daemon)

    def settled() -> bool:
        now = counted()
        return now[0] <= descriptors and now[1] <= threads

    wait_until(settled, f"no more than {descriptors} descriptors and {threads} threads", 60)
    assert () == children_so_far(daemon.pid)[3:]
    daemon.get("/")
    daemon.get("/metrics")
    assert daemon.rss_mib() < 1.1 * before_mib


def test_an_idle_sidecar_sends_and_logs_nothing(here: Site) -> None:
    daemon = here.publish(KERBEROS_LOG_LEVEL="info")
    cycles = daemon.metrics().get(UNCHANGED, 0)
    issued, said = here.kdc.requests(), len(daemon.events)

    wait_until(lambda: daemon.metrics().get(UNCHANGED, 0) > cycles, "a cycle", 120)

    assert (issued, said) == (here.kdc.requests(), len(daemon.events))
