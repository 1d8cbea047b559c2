"""
What it costs to have it: memory, processes, quiet.
"""

from pathlib import Path

from bench.measure import cpu_seconds
from tests.support.children import children_so_far
from tests.support.site import Site
from tests.support.waiting import wait_until

RSS_MIB = 40
FIRST_TICKET_SECONDS = 0.6


def test_many_tickets_cost_no_process_descriptor_thread_or_memory(here: Site) -> None:
    """From the start of the process to the first ticket: 0.2 s of CPU (2026-11)."""
    daemon = here.publish()
    assert cpu_seconds(daemon.pid) <= FIRST_TICKET_SECONDS
    here.refresh(daemon)

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
    assert ("0", "0", "0") == children_so_far(daemon.pid)
    daemon.get("/")
    daemon.get("/metrics")
    assert daemon.rss_mib() <= RSS_MIB


def test_a_quiet_cycle_asks_nobody_and_says_nothing(here: Site) -> None:
    daemon = here.publish(KERBEROS_LOG_LEVEL="info")
    issued, said = here.kdc.requests(), len(daemon.events)
    unchanged = 'sidecar_cycles_total{result="unchanged",sidecar="kerberos"}'

    wait_until(lambda: daemon.metrics().get(unchanged, 0) >= 3, "three quiet cycles")

    assert issued == here.kdc.requests()
    assert said == len(daemon.events)
