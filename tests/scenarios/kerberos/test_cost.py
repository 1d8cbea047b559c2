"""
What it costs to have it: memory, processes, quiet.
"""

import shutil
from pathlib import Path

import pytest

from bench.measure import cpu_seconds, system_calls
from tests.support.children import children_so_far
from tests.support.site import Site
from tests.support.waiting import wait_until

RSS_MIB = 40
FIRST_TICKET_SECONDS = 0.6
TRACED_SECONDS = 45
CALLS_A_SECOND = 3
UNCHANGED = 'sidecar_cycles_total{result="unchanged",sidecar="kerberos"}'


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


def test_a_quiet_sidecar_asks_nobody_says_nothing_and_makes_few_system_calls(here: Site) -> None:
    """
    Cycles and looks included: 1.7 a second (2026-11); 21 where each second had a cycle.

    On a busy machine threads wait for each other, which are calls, too: the bench has the promise.
    """
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    daemon = here.publish(KERBEROS_LOG_LEVEL="info")
    cycles = daemon.metrics().get(UNCHANGED, 0)
    issued, said = here.kdc.requests(), len(daemon.events)

    calls = system_calls(daemon.pid, TRACED_SECONDS)

    assert daemon.metrics().get(UNCHANGED, 0) > cycles, "a cycle is among them"
    assert calls <= CALLS_A_SECOND * TRACED_SECONDS
    assert (issued, said) == (here.kdc.requests(), len(daemon.events))
