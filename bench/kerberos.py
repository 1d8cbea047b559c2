"""
``python -m bench kerberos``: a ticket kept fresh, by us and by what people use.

Each tool refreshes one ccache as fast as it goes, against the same KDC on this machine, while
readers (`klist -s`, GSSAPI; of the writer's own user) use that ccache all the time; then again
without readers, for the CPU. `airflow kerberos` is among them where AIRFLOW names the program, or
`.airflow/*/bin` has it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import during
from bench.report import machine, seconds, table, version_of, write_part
from tests.support.kdc import MISSING, PATH, Kdc
from tests.support.readers import Kind, readers
from tests.support.site import SERVICE, Site, site
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[1]
OURS = "kerberos"
# It goes by seconds and cannot be asked for a refresh.
AIRFLOW_REFRESHES = 5
READERS: tuple[Kind, ...] = ("klist", "acquire", "context")


@dataclass(frozen=True)
class Row:
    """
    What one tool took and did.

    Args:
        cpu_seconds: For one refresh; user and system, children too.
        rss_mib: Of all its processes, between refreshes.
        reads: While it refreshed.
        failed: Reads that got no valid ticket.
    """

    cpu_seconds: float
    rss_mib: float
    reads: int
    failed: int


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the table, and with `--write` put it into the documentation.
    """
    parser = argparse.ArgumentParser("python -m bench kerberos", description=__doc__)
    add = parser.add_argument
    add("--refreshes", type=int, default=200, help="of each tool (default: 200)")
    add("--seconds", type=float, default=5, help="how long readers read at least (default: 5)")
    add("--write", action="store_true", help="rewrite docs/reference/benchmarks.md")
    options = parser.parse_args(arguments)
    if MISSING:
        sys.exit(f"a KDC is needed, and is not here: {', '.join(MISSING)} (make setup as root)")
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder, Kdc(Path(folder)) as kdc:
        kdc.add_principal(SERVICE)
        for name, tool in tools().items():
            with site(kdc, f"airflow{len(rows)}", renew_life="7d") as here:
                rows[name] = tool(Course(here, options.refreshes, options.seconds))
    if options.write:
        write_part("kerberos", page(rows))
    else:
        print(page(rows))


@dataclass(frozen=True)
class Course:
    """
    What a tool is put through.
    """

    here: Site
    refreshes: int
    seconds: float

    def run(self, pid: int, refresh: Callable[[], None], refreshes: int | None = None) -> Row:
        """
        Refresh while readers read, then without them for the CPU.

        Args:
            pid: The tool's process.
            refresh: Has it refresh once, and waits for that.
            refreshes: Fewer than the others do.
        """
        here, refreshes = self.here, refreshes or self.refreshes
        service = f"{SERVICE}@{here.kdc.realm}"
        scripts = here.folder / "bin"
        with readers(
            scripts, here.ccache, here.config, READERS, service, another_user=False
        ) as found:
            began, done = time.monotonic(), 0
            while done < refreshes or time.monotonic() - began < self.seconds:
                refresh()
                done += 1
            for reader in found:
                reader.stop()
        issued = here.kdc.requests()
        cost = during(pid, lambda: [refresh() for _ in range(refreshes)])
        return Row(
            cost.cpu_seconds / (here.kdc.requests() - issued),
            cost.rss_mib,
            sum(one.reads for one in found),
            sum(one.failed for one in found),
        )


def tools() -> dict[str, Callable[[Course], Row]]:
    """
    What this machine has.
    """
    found: dict[str, Callable[[Course], Row]] = {OURS: sidecar, "kinit in a loop": kinit_loop}
    if shutil.which("k5start"):
        found["k5start"] = k5start
        found["k5start -m 640"] = lambda course: k5start(course, "-m", "640")
    airflow = os.environ.get("AIRFLOW") or next(
        map(str, sorted(ROOT.glob(".airflow/*/bin/airflow"))), None
    )
    if airflow:
        found["airflow kerberos"] = lambda course: airflow_kerberos(course, airflow)
    return found


def sidecar(course: Course) -> Row:
    """
    `kerberos-sidecar`, asked by SIGHUP.
    """
    daemon = course.here.publish(KERBEROS_LOG_LEVEL="info")
    daemon.wait_until_ready()

    def refresh() -> None:
        course.here.refresh(daemon)

    return course.run(daemon.pid, refresh)


def k5start(course: Course, *options: str) -> Row:
    """
    `k5start`, asked by SIGALRM; without -m, -o or -g it writes in place.
    """
    here = course.here
    command = ["k5start", "-q", "-K", "60", "-f", str(here.keytab), "-k", str(here.ccache)]
    with running([*command, *options, here.principal], here) as process:
        wait_until(here.is_valid, "the first ticket")

        def refresh() -> None:
            before = here.kdc.requests()
            while here.kdc.requests() == before:
                # One that comes while it writes is forgotten.
                process.send_signal(signal.SIGALRM)
                time.sleep(0.02)

        return course.run(process.pid, refresh)


def kinit_loop(course: Course) -> Row:
    """
    A shell that runs `kinit` whenever it is told to, in the place of `sleep`.
    """
    here = course.here
    kinit = f"kinit -k -t {here.keytab} -c {here.ccache} {here.principal} && echo done"
    with running(["sh", "-c", f"{kinit}; while read -r _; do {kinit}; done"], here) as process:
        assert process.stdin is not None and process.stdout is not None
        told, says = process.stdin, process.stdout
        says.readline()

        def refresh() -> None:
            told.write("\n")
            told.flush()
            says.readline()

        return course.run(process.pid, refresh)


def airflow_kerberos(course: Course, airflow: str) -> Row:
    """
    `airflow kerberos`, every second, and 1.5 more for its `kinit -R`.
    """
    here = course.here
    environment = {
        "PATH": PATH,
        "AIRFLOW_HOME": str(here.folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__KERBEROS__CCACHE": str(here.ccache),
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
            before = here.kdc.requests()
            wait_until(lambda: here.kdc.requests() > before, "a refresh", 60)

        return course.run(process.pid, refresh, AIRFLOW_REFRESHES)


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


def page(rows: dict[str, Row]) -> str:
    """
    Return the table, and what was measured on what.
    """
    header = ["tool", "failed reads", "CPU of a refresh", "memory"]
    lines = [
        [
            name,
            f"{row.failed:,} of {row.reads:,}",
            seconds(row.cpu_seconds),
            f"{row.rss_mib:.1f} MiB",
        ]
        for name, row in rows.items()
    ]
    versions = {"MIT krb5": version_of("krb5-config", "--version")}
    return f"{table(header, lines)}\n{machine(versions)}\n"
