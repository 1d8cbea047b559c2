"""
The tools that keep a ticket fresh: the sidecar and its peers. Each can be told to refresh.
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

from tests.support.airflow.installed import Airflow, AirflowIsMissing
from tests.support.kerberos.kdc import PATH
from tests.support.kerberos.site import Site
from tests.support.waiting import wait_until

OURS = "kerberos"
TWO = "kerberos, two on one ccache"
AIRFLOW = "airflow kerberos 2.11"


@dataclass(frozen=True)
class Tool:
    """
    A running tool.

    Args:
        pid: Its process, the parent of all processes that it starts.
        refresh: Triggers one refresh and waits for it.
        is_slow: It refreshes once per second or slower, and no refresh can be triggered.
    """

    pid: int
    refresh: Callable[[], object]
    is_slow: bool = False


Start = Callable[[Site], AbstractContextManager[Tool]]


def tools() -> tuple[Mapping[str, Start], dict[str, str]]:
    """
    Return the tools on this machine, and a reason for each missing one.
    """
    found: dict[str, Start] = {OURS: sidecar, TWO: two_sidecars, "kinit in a loop": kinit_loop}
    missing = {}
    if shutil.which("k5start"):
        found["k5start"] = k5start
        found["k5start -m 640"] = partial(k5start, options=("-m", "640"))
    else:
        missing["k5start"] = "install Debian's kstart"
    try:
        airflow = Airflow.install("2.11")
        found[AIRFLOW] = partial(airflow_kerberos, airflow=airflow)
    except (AirflowIsMissing, AssertionError) as error:
        missing[AIRFLOW] = str(error).splitlines()[-1]
    return found, missing


@contextmanager
def sidecar(here: Site) -> Iterator[Tool]:
    """
    Run `kerberos-sidecar`; SIGHUP triggers a refresh.
    """
    daemon = here.publish(KERBEROS_LOG_LEVEL="info")
    yield Tool(daemon.pid, lambda: here.refresh(daemon))


@contextmanager
def two_sidecars(here: Site) -> Iterator[Tool]:
    """
    Run two sidecars that write the same ccache at the same time; the pid is that of the first.
    """
    daemons = [here.publish(KERBEROS_LOG_LEVEL="info") for _ in range(2)]

    def refresh() -> None:
        daemons[1].sighup()
        here.refresh(daemons[0])

    yield Tool(daemons[0].pid, refresh)


@contextmanager
def kinit_loop(here: Site) -> Iterator[Tool]:
    """
    Run a shell that runs `kinit` on demand, instead of sleeping in between.
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
    Run `k5start`; SIGALRM triggers a refresh. Without -m, -o or -g it writes in place.
    """
    command = ["k5start", "-q", "-K", "60", "-f", str(here.keytab), "-k", str(here.ccache)]
    with running([*command, *options, here.principal], here) as process:
        wait_until(here.is_valid, "the first ticket")

        def refresh() -> None:
            before = here.kdc.requests(client=here.principal)
            while here.kdc.requests(client=here.principal) == before:
                # It ignores a signal that arrives while it writes.
                process.send_signal(signal.SIGALRM)
                time.sleep(0.02)

        yield Tool(process.pid, refresh)


@contextmanager
def airflow_kerberos(here: Site, airflow: Airflow) -> Iterator[Tool]:
    """
    Run `airflow kerberos`, which refreshes every second plus 1.5 s for its `kinit -R`.
    """
    environment = {
        **airflow.environment(None, here.folder),
        "PATH": f"{airflow.bin}:{PATH}",
        "AIRFLOW__KERBEROS__CCACHE": str(here.ccache),
        "AIRFLOW__KERBEROS__REINIT_FREQUENCY": "1",
        # Otherwise the ticket has the machine's addresses, which do not include loopback.
        "AIRFLOW__KERBEROS__INCLUDE_IP": "false",
    }
    program = str(airflow.bin / "airflow")
    # No Airflow command starts without a database.
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
    Run a peer in its own session, and kill all of its processes afterwards.

    Args:
        stdout: As in `subprocess.Popen`; a pipe that nobody reads would block the peer.
        more: Additional variables.
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
