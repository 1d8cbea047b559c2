"""
What keeps a ticket fresh: we, and what people use. Each is started at a site, and can be asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from tests.support.airflow import Airflow, AirflowIsMissing
from tests.support.kdc import PATH
from tests.support.site import Site
from tests.support.waiting import wait_until

OURS = "kerberos"
TWO = "kerberos, two on one ccache"
AIRFLOW = "airflow kerberos 2.11"


@dataclass(frozen=True)
class Tool:
    """
    One that runs.

    Args:
        pid: Its process; what it starts is below.
        refresh: Has it refresh once, and waits for that.
        is_slow: It goes by seconds and cannot be asked for a refresh.
    """

    pid: int
    refresh: Callable[[], object]
    is_slow: bool = False


Start = Callable[[Site], AbstractContextManager[Tool]]


def tools() -> tuple[Mapping[str, Start], dict[str, str]]:
    """
    Return what this machine has, and the reason for each that it has not.
    """
    found: dict[str, Start] = {OURS: sidecar, TWO: two_sidecars, "kinit in a loop": kinit_loop}
    missing = {}
    if shutil.which("k5start"):
        found["k5start"] = k5start
        found["k5start -m 640"] = partial(k5start, options=("-m", "640"))
    else:
        missing["k5start"] = "it is in Debian's kstart"
    try:
        airflow = Airflow.install("2.11")
        found[AIRFLOW] = partial(airflow_kerberos, airflow=airflow)
    except (AirflowIsMissing, AssertionError) as error:
        missing[AIRFLOW] = str(error).splitlines()[-1]
    return found, missing


@contextmanager
def sidecar(here: Site) -> Iterator[Tool]:
    """
    `kerberos-sidecar`, asked by SIGHUP.
    """
    daemon = here.publish(KERBEROS_LOG_LEVEL="info")
    yield Tool(daemon.pid, lambda: here.refresh(daemon))


@contextmanager
def two_sidecars(here: Site) -> Iterator[Tool]:
    """
    Two of them that write the same ccache at the same time; the process is the first one's.
    """
    daemons = [here.publish(KERBEROS_LOG_LEVEL="info") for _ in range(2)]

    def refresh() -> None:
        daemons[1].sighup()
        here.refresh(daemons[0])

    yield Tool(daemons[0].pid, refresh)


@contextmanager
def kinit_loop(here: Site) -> Iterator[Tool]:
    """
    A shell that runs `kinit` on demand, instead of sleeping in between.
    """
    kinit = f"kinit -k -t {here.keytab} -c {here.ccache} {here.principal} && echo done"
    loop = f"{kinit}; while read -r _; do {kinit}; done"
    with running(["sh", "-c", loop], here, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        told, says = process.stdin, process.stdout
        says.readline()

        def refresh() -> None:
            told.write("\n")
            told.flush()
            says.readline()

        yield Tool(process.pid, refresh)


@contextmanager
def k5start(here: Site, options: tuple[str, ...] = ()) -> Iterator[Tool]:
    """
    `k5start`, asked by SIGALRM; without -m, -o or -g it writes in place.
    """
    command = ["k5start", "-q", "-K", "60", "-f", str(here.keytab), "-k", str(here.ccache)]
    with running([*command, *options, here.principal], here) as process:
        wait_until(here.is_valid, "the first ticket")

        def refresh() -> None:
            before = here.kdc.requests(client=here.principal)
            while here.kdc.requests(client=here.principal) == before:
                # One that comes while it writes is forgotten.
                process.send_signal(signal.SIGALRM)
                time.sleep(0.02)

        yield Tool(process.pid, refresh)


@contextmanager
def airflow_kerberos(here: Site, airflow: Airflow) -> Iterator[Tool]:
    """
    `airflow kerberos`, every second, and 1.5 more for its `kinit -R`.
    """
    environment = {
        **airflow.environment(None, here.folder),
        "PATH": f"{airflow.bin}:{PATH}",
        "AIRFLOW__KERBEROS__CCACHE": str(here.ccache),
        "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "1",
        # It would put the machine's addresses into the ticket, and loopback is not one of them.
        "AIRFLOW__KERBEROS__INCLUDE_IP": "false",
    }
    program = str(airflow.bin / "airflow")
    # It starts no command without a database.
    subprocess.run([program, "db", "migrate"], env=environment, check=True, capture_output=True)
    command = [program, "kerberos", "--keytab", str(here.keytab), here.principal]
    with running(command, here, **environment) as process:  # type: ignore[arg-type]
        wait_until(here.is_valid, "the first ticket", 120)

        def refresh() -> None:
            before = here.kdc.requests(client=here.principal)
            wait_until(lambda: here.kdc.requests(client=here.principal) > before, "a refresh", 60)

        yield Tool(process.pid, refresh, is_slow=True)


@contextmanager
def running(
    command: list[str], here: Site, stdout: int = subprocess.DEVNULL, **more: str
) -> Iterator[subprocess.Popen[str]]:
    """
    Run a peer in a session of its own, and end all of it.

    Args:
        stdout: As `subprocess.Popen` takes it; what nobody reads must not fill a pipe.
        more: Variables.
    """
    process = subprocess.Popen(
        command,
        env={"PATH": PATH, "KRB5_CONFIG": str(here.config), **more},
        stdin=subprocess.PIPE,
        stdout=stdout,
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
