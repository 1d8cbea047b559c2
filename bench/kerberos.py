"""
``python -m bench kerberos``: refresh a ticket with the sidecar and with its peers.

Each tool refreshes its own ccache as fast as it can, against the same KDC on this machine, while
readers (`klist -s`, GSSAPI; as the writer's user) read that ccache continuously. Then the tools
take turns without readers, to measure the CPU. Finally the KDC hangs, and earlier KDCs are silent.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.budgets import Outcome, at_most, at_most_seconds, none_of
from bench.images import size_over_base
from bench.kerberos_failover import GIVEN_UP_SECONDS, Took, failover, failover_table
from bench.kerberos_tools import OURS, TWO, Tool, tools
from bench.measure import Cost, cpu_seconds, during, least, median, system_calls
from bench.report import Section, deliver, machine, seconds, table, times, version_of
from tests.support.daemon import SidecarProcess
from tests.support.kerberos.kdc import MISSING, Kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.readers import Kind, readers
from tests.support.kerberos.site import KERBEROS_SIDECAR, SERVICE, Site, site
from tests.support.waiting import wait_until

READERS: tuple[Kind, ...] = ("klist", "acquire", "context")
PROMISED_READS = 100_000
FIRST_TICKET_SECONDS, IDLE_MIB, HEALTH_SECONDS, END_SECONDS, IMAGE_MB = 0.6, 40, 0.050, 1.0, 30
HEALTH_REQUESTS = 1_000
FAILOVER_SECONDS, IDLE_CALLS = 15.0, 2.0
# Two heartbeats: otherwise chance decides how many cycles are counted.
IDLE_SECONDS = 80
# The total CPU of ended children has a precision of 10 ms.
SLOW_REFRESHES = 8


@dataclass
class Row:
    """
    The results of one tool.

    Args:
        costs: Of a refresh, one for each turn; empty for two sidecars.
        reads: The number of reads while the tool refreshed.
        failed: Reads without a valid ticket.
    """

    costs: list[Cost] = field(default_factory=list)
    reads: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Hung:
    """
    The behavior of the sidecar while the KDC hangs.

    Args:
        health_seconds: The p99 of `/healthz`.
        end_seconds: The longest time from SIGTERM to the end.
    """

    health_seconds: float
    end_seconds: float


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` put them into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench kerberos", description=__doc__)
    add = parser.add_argument
    add("--refreshes", type=int, default=100, help="refreshes per tool and turn (default: 100)")
    add("--turns", type=int, default=3, help="measurements of each tool (default: 3)")
    add("--reads", type=int, default=PROMISED_READS, help="reads of our ccache (default: 100,000)")
    add("--seconds", type=float, default=5, help="seconds of reads for each peer (default: 5)")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks*")
    options = parser.parse_args(arguments)
    if MISSING:
        print(f"kerberos: a KDC needs {', '.join(MISSING)}: run make setup-test as root")
        return
    starts, missing = tools()
    rows: dict[str, Row] = defaultdict(Row)
    with tempfile.TemporaryDirectory() as folder, Kdc(Path(folder)) as kdc, ExitStack() as stack:
        kdc.add_principal(SERVICE)
        started: dict[str, tuple[Site, Tool]] = {}
        for name, start in starts.items():
            here = stack.enter_context(site(kdc, f"airflow{len(started)}", renew_life="7d"))
            started[name] = here, stack.enter_context(start(here))
        for name, (here, tool) in started.items():
            print(f"reading, {name}", flush=True)
            reads = options.reads if name in (OURS, TWO) else 0
            rows[name].reads, rows[name].failed = read(here, tool, options.seconds, reads)
        for _ in range(options.turns):
            for name, (here, tool) in started.items():
                if name == TWO or name in missing:
                    continue
                refreshes = SLOW_REFRESHES if tool.is_slow else options.refreshes
                try:
                    rows[name].costs.append(refresh(here, tool, refreshes))
                except AssertionError as error:
                    if name == OURS:
                        raise
                    missing[name] = f"it stopped refreshing: {error}"
        first = min(first_ticket(started[OURS][0]) for _ in range(options.turns))
        print("the KDC hangs", flush=True)
        hung = while_hung(started[OURS][0], options.turns)
        here, tool = started[OURS]
        here.configure()
        idle = idle_calls(tool.pid)
        print("silent KDCs", flush=True)
        took = failover(here, OURS)
    image = size_over_base(OURS, IMAGE_MB)
    found = section(rows, [*budgets(rows, first, hung, idle, took), image], took, missing)
    deliver(found, is_written=options.write)


def section(
    rows: Mapping[str, Row], outcomes: Sequence[Outcome], took: Took, missing: Mapping[str, str]
) -> Section:
    """
    Return the section of the page.
    """
    versions = {"MIT krb5": version_of("krb5-config", "--version")}
    versions[OURS] = version_of(KERBEROS_SIDECAR, "--version")
    return Section(
        OURS,
        {
            "machine": machine(versions),
            "refresh": refresh_table(rows),
            "failover": failover_table(took, OURS),
        },
        outcomes,
        missing,
    )


def read(here: Site, tool: Tool, at_least_seconds: float, at_least_reads: int) -> tuple[int, int]:
    """
    Read the ccache while a tool refreshes it; return the number of reads and of failed reads.
    """
    service = f"{SERVICE}@{here.kdc.realm}"
    reads = failed = 0
    while not reads or reads < at_least_reads:
        with readers(
            here.folder / "bin", here.ccache, here.config, READERS, service, another_user=False
        ) as found:
            began = time.monotonic()
            while time.monotonic() - began < at_least_seconds:
                tool.refresh()
            for reader in found:
                reader.stop()
        reads += sum(one.reads for one in found)
        failed += sum(one.failed for one in found)
    return reads, failed


def refresh(here: Site, tool: Tool, refreshes: int) -> Cost:
    """
    Return the mean cost of a refresh.
    """
    before = here.kdc.requests(client=here.principal)
    spent = during(tool.pid, lambda: [tool.refresh() for _ in range(refreshes)])
    issued = here.kdc.requests(client=here.principal) - before
    return Cost(spent.cpu_seconds / issued, spent.wall_seconds / issued, spent.rss_mib)


def first_ticket(here: Site) -> float:
    """
    Return the CPU seconds from the start of the process to the first ticket.
    """
    daemon = here.publish()
    spent = cpu_seconds(daemon.pid)
    daemon.kill()
    return spent


def while_hung(here: Site, turns: int) -> Hung:
    """
    Query /healthz of a sidecar whose request to the KDC hangs, then end it with SIGTERM.
    """
    took: list[float] = []
    ends: list[float] = []
    with KdcProxy(here.kdc.port) as proxy:
        here.configure(proxy.address)
        proxy.behavior = "silent"
        for _ in range(turns):
            seen = proxy.requests
            daemon = here.start()
            wait_until(
                lambda: proxy.requests > seen,  # noqa: B023
                "a request hangs",
            )
            took += [health(daemon) for _ in range(HEALTH_REQUESTS // turns)]
            ended = daemon.terminate()
            assert ended.code == 0, daemon.log()
            ends.append(ended.seconds)
    return Hung(sorted(took)[int(len(took) * 0.99) - 1], max(ends))


def health(daemon: SidecarProcess) -> float:
    """
    Return the wall seconds of one `/healthz`.
    """
    began = time.perf_counter()
    assert daemon.get("/healthz").status == 200
    return time.perf_counter() - began


def idle_calls(pid: int) -> float:
    """
    Return the system calls per second between two tickets, including cycles.
    """
    return system_calls(pid, IDLE_SECONDS) / IDLE_SECONDS


def budgets(
    rows: Mapping[str, Row], first: float, hung: Hung, idle: float, took: Took
) -> list[Outcome]:
    """
    Return the outcomes of all budgets except that of the image.
    """
    one, two = rows[OURS], rows[TWO]
    longest = max(found[OURS] or GIVEN_UP_SECONDS for found in took.values())
    memory = median(one.costs).rss_mib
    return [
        none_of("failed reads", "one writer", one.failed, one.reads, PROMISED_READS),
        none_of("failed reads", "two writers", two.failed, two.reads, PROMISED_READS),
        at_most_seconds(
            "while the KDC hangs", "/healthz, p99", HEALTH_SECONDS, hung.health_seconds
        ),
        at_most_seconds("while the KDC hangs", "SIGTERM, longest", END_SECONDS, hung.end_seconds),
        at_most_seconds("failover", "past five silent KDCs, longest", FAILOVER_SECONDS, longest),
        at_most("idle", "system calls a second", IDLE_CALLS, idle, "a second"),
        at_most("memory", "between refreshes", IDLE_MIB, memory, "MiB"),
        at_most_seconds("start", "to the first ticket, CPU", FIRST_TICKET_SECONDS, first),
    ]


def refresh_table(rows: Mapping[str, Row]) -> str:
    """
    Return a table of refreshes by tool.
    """
    header = ["tool", "failed reads", "CPU of a refresh", "median", "relative", "memory"]
    ours = least(rows[OURS].costs).cpu_seconds
    lines = []
    for name, row in rows.items():
        shown = f"**{name}**" if name in (OURS, TWO) else name
        read = f"{row.failed:,} of {row.reads:,}"
        if not row.costs:
            lines.append([shown, read, "", "", "", ""])
            continue
        low, middle = least(row.costs), median(row.costs)
        lines.append(
            [
                shown,
                read,
                seconds(low.cpu_seconds),
                seconds(middle.cpu_seconds),
                times(low.cpu_seconds / ours),
                f"{middle.rss_mib:.1f} MiB",
            ]
        )
    return table(header, lines)
