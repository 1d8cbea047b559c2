"""
``python -m bench kerberos [REFRESHES]``: a ticket kept fresh, by us and by what people use.

Each tool refreshes one ccache as fast as it goes, against the same KDC on this machine, while
readers (`klist -s`, GSSAPI; of the writer's own user) use that ccache all the time. Shown are
failed reads, CPU (user and system, children too) of a refresh, and memory between refreshes.
`airflow kerberos` is among them where AIRFLOW names the program, or `.airflow/*/bin` has it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.kdc import MISSING, PATH, Kdc
from tests.support.readers import Kind, readers
from tests.support.site import SERVICE, Site, site
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[1]
REFRESHES = 200
AIRFLOW_REFRESHES = 5
READERS: tuple[Kind, ...] = ("klist", "acquire", "context")
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """
    What one tool took and did.

    Args:
        cpu_seconds: For one refresh.
        rss_mib: Of all its processes, between refreshes.
        reads: While it refreshed.
        failed: Reads that got no valid ticket.
    """

    cpu_seconds: float
    rss_mib: float
    reads: int
    failed: int


def main(arguments: list[str]) -> None:
    """
    Print the table.
    """
    if MISSING:
        sys.exit(f"a KDC is needed, and is not here: {', '.join(MISSING)} (make setup as root)")
    refreshes = int(arguments[0]) if arguments else REFRESHES
    with tempfile.TemporaryDirectory() as folder, Kdc(Path(folder)) as kdc:
        kdc.add_principal(SERVICE)
        costs = {}
        for name, tool in tools().items():
            with site(kdc, f"airflow{len(costs)}", renew_life="7d") as here:
                costs[name] = tool(here, refreshes)
    show(costs)


def tools() -> dict[str, Callable[[Site, int], Cost]]:
    """
    What this machine has.
    """
    found: dict[str, Callable[[Site, int], Cost]] = {
        "kerberos-sidecar": sidecar,
        "kinit loop": kinit_loop,
    }
    if shutil.which("k5start"):
        found |= {"k5start": k5start, "k5start -m 640": lambda *args: k5start(*args, "-m", "640")}
    airflow = os.environ.get("AIRFLOW") or next(
        map(str, sorted(ROOT.glob(".airflow/*/bin/airflow"))), None
    )
    if airflow:
        found["airflow kerberos"] = lambda here, _: airflow_kerberos(here, airflow)
    return found


def sidecar(here: Site, refreshes: int) -> Cost:
    """
    `kerberos-sidecar`, asked by SIGHUP.
    """
    daemon = here.publish(KERBEROS_LOG_LEVEL="info")
    daemon.wait_until_ready()

    def refresh() -> None:
        here.refresh(daemon)

    return measured(here, daemon.pid, refresh, refreshes)


def k5start(here: Site, refreshes: int, *options: str) -> Cost:
    """
    `k5start`, asked by SIGALRM; without -m, -o or -g it writes in place.
    """
    command = ["k5start", "-q", "-K", "60", "-f", str(here.keytab), "-k", str(here.ccache)]
    with running([*command, *options, here.principal], here) as process:
        wait_until(here.is_valid, "the first ticket")

        def refresh() -> None:
            before = here.kdc.requests()
            while here.kdc.requests() == before:
                # One that comes while it writes is forgotten.
                process.send_signal(signal.SIGALRM)
                time.sleep(0.02)

        return measured(here, process.pid, refresh, refreshes)


def kinit_loop(here: Site, refreshes: int) -> Cost:
    """
    A shell that runs `kinit` whenever it is told to, in the place of `sleep`.
    """
    kinit = f"kinit -k -t {here.keytab} -c {here.ccache} {here.principal} && echo done"
    loop = f"{kinit}; while read -r _; do {kinit}; done"
    with running(["sh", "-c", loop], here) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()

        def refresh() -> None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()

        return measured(here, process.pid, refresh, refreshes)


def airflow_kerberos(here: Site, airflow: str) -> Cost:
    """
    `airflow kerberos`, which goes by seconds: every one, plus 1.5 for its `kinit -R`.
    """
    environment = {
        "PATH": PATH,
        "AIRFLOW_HOME": str(here.folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__KERBEROS__KEYTAB": str(here.keytab),
        "AIRFLOW__KERBEROS__CCACHE": str(here.ccache),
        "AIRFLOW__KERBEROS__PRINCIPAL": here.principal,
        "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "1",
        # It would put the machine's addresses into the ticket, and loopback is none of them.
        "AIRFLOW__KERBEROS__INCLUDE_IP": "false",
        "HOME": str(here.folder),
    }
    # It starts no command without a database.
    subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    command = [airflow, "kerberos", "--keytab", str(here.keytab), here.principal]
    with running(command, here, **environment) as process:
        wait_until(here.is_valid, "the first ticket", 120)

        def refresh() -> None:
            before = here.ccache.stat().st_ino
            wait_until(lambda: here.ccache.stat().st_ino != before, "a refresh", 60)

        return measured(here, process.pid, refresh, AIRFLOW_REFRESHES)


@contextmanager
def running(command: list[str], here: Site, **more: str) -> Iterator[subprocess.Popen[str]]:
    """
    Run a peer in a session of its own, and end all of it.
    """
    process = subprocess.Popen(
        command,
        env={"PATH": PATH, "KRB5_CONFIG": str(here.config), **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def measured(here: Site, pid: int, refresh: Callable[[], None], refreshes: int) -> Cost:
    """
    Refresh while readers read, then without them for the CPU.
    """
    service = f"{SERVICE}@{here.kdc.realm}"
    scripts = here.folder / "bin"
    with readers(scripts, here.ccache, here.config, READERS, service, another_user=False) as found:
        began = time.monotonic()
        done = 0
        while done < refreshes or time.monotonic() - began < 3:
            refresh()
            done += 1
        for reader in found:
            reader.stop()
    before, issued = cpu_seconds(pid), here.kdc.requests()
    for _ in range(refreshes):
        refresh()
    cpu = (cpu_seconds(pid) - before) / (here.kdc.requests() - issued)
    reads, failed = sum(one.reads for one in found), sum(one.failed for one in found)
    return Cost(cpu, rss_mib(pid), reads, failed)


def tree(pid: int) -> list[int]:
    """
    A process and all below it.
    """
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """
    User and system time of a process, its threads, and the children that it has waited for.
    """
    ticks = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICK


def rss_mib(pid: int) -> float:
    """
    Resident memory of a process and all below it (VmRSS).
    """
    kib = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{one}/status").read_text()
            kib += int(text.partition("VmRSS:")[2].split()[0])
    return kib / 1024


def show(costs: dict[str, Cost]) -> None:
    """
    Print the costs, and how many times ours the CPU is.
    """
    ours = costs["kerberos-sidecar"].cpu_seconds
    print(f"{'':<17} {'failed reads':>16} {'CPU a refresh':>15} {'ratio':>7} {'memory':>10}")
    for name, cost in costs.items():
        failed = f"{cost.failed} of {cost.reads}"
        milliseconds = f"{cost.cpu_seconds * 1000:.1f} ms"
        ratio = f"{cost.cpu_seconds / ours:.1f}" if ours else "-"
        memory = f"{cost.rss_mib:.1f} MiB"
        print(f"{name:<17} {failed:>16} {milliseconds:>15} {ratio:>7} {memory:>10}")


if __name__ == "__main__":
    main(sys.argv[1:])
