"""
``python -m bench kerberos``: a ticket from the sidecar and from ``kinit``, on loopback.

Readers (`klist -s`, GSSAPI) read the ccache while sidecars refresh it. Then refreshes
are counted without readers, the only KDC is black-holed over TCP, and others are silent
before it. The sidecar's time past silent KDCs excludes the start of the process: a
daemon starts only once.
"""

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.budgets import Outcome, at_most, at_most_seconds, none_of
from bench.images import size_over_base
from bench.measure import Cost, cpu_seconds, least, rss_mib, run
from bench.report import deliver, options, seconds, table, version_of
from tests.support.kerberos.kdc import PATH, Kdc, skip_without_kdc
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.readers import Kind, readers
from tests.support.kerberos.site import KERBEROS_SIDECAR, SERVICE, Site, site
from tests.support.waiting import wait_until

OURS = "kerberos"
KINIT = "kinit"
PROMISED_READS = 100_000
READ_SECONDS = 5.0
REFRESH_SECONDS = 0.200
START_SECONDS = 0.600
IDLE_MIB = 40
IMAGE_MB = 30
HEALTH_SECONDS = 0.050
END_SECONDS = 1.0
FAILOVER_SECONDS = 15.0
HEALTH_REQUESTS = 300
TURNS = 3
GIVEN_UP_SECONDS = 90.0
SILENT = (1, 3, 5)
# Which transport libkrb5 tries first, by the `udp_preference_limit` that makes it do
# so.
FIRST = {"UDP": "1465", "TCP": "1"}

Times = Mapping[str, Sequence[float | None]]
"""
Seconds by situation, ours and kinit's; None = no ticket within `GIVEN_UP_SECONDS`.
"""


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    given = options(
        OURS,
        __doc__,
        arguments,
        refreshes=(30, "refreshes per turn and tool"),
        reads=(PROMISED_READS, "reads of our ccache"),
    )
    skip_without_kdc()
    with (
        tempfile.TemporaryDirectory() as folder,
        Kdc(Path(folder)) as kdc,
        site(kdc, "airflow") as here,
    ):
        kdc.add_principal(SERVICE)
        print("reading", flush=True)
        failed = [reads(here, writers, given.reads) for writers in (1, 2)]
        print("refreshing", flush=True)
        ours, theirs, first, idle_mib = refreshes(here, given.refreshes)
        print("silent KDCs", flush=True)
        hung = while_hung(here)
        times = {"CPU of a refresh": (ours, theirs), **past_silent(here)}
    longest = max(
        times[_silent(count, "UDP")][0] or GIVEN_UP_SECONDS for count in SILENT
    )
    outcomes = [
        *failed,
        at_most_seconds("refresh", "CPU", REFRESH_SECONDS, ours),
        at_most_seconds(
            "failover", "past five silent KDCs, longest", FAILOVER_SECONDS, longest
        ),
        *hung,
        at_most("memory", "idle", IDLE_MIB, idle_mib, "MiB"),
        at_most_seconds("start", "to the first ticket, CPU", START_SECONDS, first),
        size_over_base(OURS, IMAGE_MB),
    ]
    versions = {
        "MIT krb5": version_of("krb5-config", "--version"),
        OURS: version_of(KERBEROS_SIDECAR, "--version"),
    }
    deliver(OURS, {"peers": peers_table(times)}, outcomes, versions, page=given.page)


def reads(here: Site, writers: int, at_least: int) -> Outcome:
    """
    Read the ccache while sidecars refresh it as fast as they can.
    """
    daemons = [here.publish() for _ in range(writers)]
    service = f"{SERVICE}@{here.kdc.realm}"
    tried = 0
    failed = 0
    kinds: tuple[Kind, ...] = ("klist", "acquire", "context")
    while tried < at_least:
        with readers(
            here.folder / "bin",
            here.ccache,
            here.config,
            kinds,
            service,
            another_user=False,
        ) as found:
            ends_at = time.monotonic() + READ_SECONDS
            while time.monotonic() < ends_at:
                for daemon in daemons[1:]:
                    daemon.sighup()
                here.refresh(daemons[0])
            for reader in found:
                reader.stop()
        tried += sum(reader.reads for reader in found)
        failed += sum(reader.failed for reader in found)
    for daemon in daemons:
        daemon.kill()
    what = "one writer" if writers == 1 else f"{writers} writers"
    return none_of("failed reads", what, failed, tried, PROMISED_READS)


def refreshes(here: Site, count: int) -> tuple[float, float, float, float]:
    """
    Return the CPU of a refresh, ours and kinit's, that of a start to the first ticket,
    and the idle memory.
    """
    daemon = here.publish()
    first = cpu_seconds(daemon.pid)
    ours = []
    theirs = []
    for _ in range(TURNS):  # the tools take turns
        before = cpu_seconds(daemon.pid)
        for _ in range(count):
            here.refresh(daemon)
        ours.append((cpu_seconds(daemon.pid) - before) / count)
        theirs += [kinit(here, here.config) for _ in range(count)]
    idle_mib = rss_mib(daemon.pid)
    daemon.kill()
    return min(ours), least(theirs).cpu_seconds, first, idle_mib


def kinit(here: Site, config: Path) -> Cost:
    """
    Return the cost of a ticket from kinit.
    """
    command = [KINIT, "-kt", str(here.keytab), "-c", f"{config}-kinit", here.principal]
    environment = {"PATH": PATH, "KRB5_CONFIG": str(config)}
    return run(command, environment, timeout_seconds=GIVEN_UP_SECONDS)


def while_hung(here: Site) -> list[Outcome]:
    """
    Query /healthz of a sidecar whose request to a black-holed KDC hangs, then end it by
    SIGTERM.
    """
    took = list[float]()
    ends = list[float]()
    with KdcProxy(here.kdc.port) as proxy:
        here.configure(proxy.address, udp_preference_limit=FIRST["TCP"])
        proxy.behavior = "silent"
        for _ in range(TURNS):
            seen = proxy.requests
            daemon = here.start()
            wait_until(lambda: proxy.requests > seen, "a request hangs")  # noqa: B023
            for _ in range(HEALTH_REQUESTS):
                began = time.perf_counter()
                assert daemon.get("/healthz").status == 200
                took.append(time.perf_counter() - began)
            ended = daemon.terminate()
            assert ended.code == 0 and not daemon.find_events("cycle_failed"), (
                daemon.log()
            )
            ends.append(ended.seconds)
    p99 = sorted(took)[int(len(took) * 0.99) - 1]
    what = "while a TCP KDC is black-holed"
    return [
        at_most_seconds(what, "/healthz, p99", HEALTH_SECONDS, p99),
        at_most_seconds(what, "SIGTERM, longest", END_SECONDS, max(ends)),
    ]


def past_silent(here: Site) -> Times:
    """
    Measure a first ticket past silent KDCs, all cases in parallel: nearly all of it is
    waiting.
    """
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(2 * len(FIRST) * len(SILENT)) as threads,
    ):
        pending = {}
        for transport, limit in FIRST.items():
            for count in SILENT:
                proxies = [stack.enter_context(KdcProxy(0)) for _ in range(count)]
                for proxy in proxies:
                    proxy.behavior = "silent"
                addresses = (*(proxy.address for proxy in proxies), here.kdc.address)
                path = here.folder / f"silent-{transport}-{count}"
                here.kdc.client_config(path, addresses, {"udp_preference_limit": limit})
                pending[_silent(count, transport)] = [
                    threads.submit(ask, here, path) for ask in (_ours, _kinit)
                ]
        return {case: [one.result() for one in both] for case, both in pending.items()}


def _silent(count: int, transport: str) -> str:
    return f"{count} silent KDC{'s' if count > 1 else ''}, {transport} first"


def _ours(here: Site, config: Path) -> float | None:
    settings = {"KRB5_CONFIG": str(config), "KERBEROS_CCACHE": f"{config}-ours"}
    with here.sidecar(**settings, KERBEROS_ONE_SHOT="true") as daemon:
        daemon.wait_for_exit(2 * GIVEN_UP_SECONDS)
        took = [
            event["duration_seconds"] for event in daemon.find_events("ticket_acquired")
        ]
        return took[0] if took else None


def _kinit(here: Site, config: Path) -> float | None:
    try:
        return kinit(here, config).wall_seconds
    except (subprocess.TimeoutExpired, RuntimeError):
        return None


def peers_table(times: Times) -> str:
    """
    Return a table of seconds by situation and tool.
    """
    rows = []
    for case, (ours, theirs) in times.items():
        ratio = f"{ours / theirs:.2g}" if ours and theirs else ""
        rows.append([case, _shown(ours), _shown(theirs), ratio])
    return table(["what", f"**{OURS}**", KINIT, "ratio"], rows)


def _shown(value: float | None) -> str:
    return f"none in {GIVEN_UP_SECONDS:.0f} s" if value is None else seconds(value)
