"""
The real `sync-perm` beside a real Airflow.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests import Given
from tests.support.airflow.installed import Airflow
from tests.support.daemon import VENV_BIN, Event, Settings, SidecarProcess
from tests.support.forks import Command
from tests.support.ledger.seen import Witness
from tests.support.waiting import wait_until

SYNC_PERM = VENV_BIN / "sync-perm"
POLL_SECONDS = 0.5
PASS_SECONDS = 240.0
"""The longest wait for a pass: the machine may be busy."""


class SyncPerm(SidecarProcess):
    """
    A supervisor with its own environment; a `with` statement starts it.
    """

    def __init__(
        self,
        airflow: Airflow,
        url: str | None,
        home: Path,
        settings: Given | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """
        Describe a supervisor without starting it.

        Args:
            airflow: The Airflow whose `airflow` is on PATH.
            url: AIRFLOW__DATABASE__SQL_ALCHEMY_CONN; `None` omits it.
            home: HOME, with AIRFLOW_HOME in it; TMPDIR is another folder in it.
            settings: More variables; `None` removes a variable that is set here.
            arguments: The command line, for example `("check",)`.
        """
        self.scratch = home / "tmp"
        self.scratch.mkdir(parents=True, exist_ok=True)
        environment: Settings = {
            **airflow.environment(url, home),
            "TMPDIR": str(self.scratch),
            "INTERVAL": str(POLL_SECONDS),
            "SYNC_PERM_HTTP_BIND": "127.0.0.1:0",
            "SYNC_PERM_LOG_LEVEL": "debug",
            **(settings or {}),
        }
        super().__init__(SYNC_PERM, environment, home, arguments)

    def wait_until_good(self, timeout_seconds: float = PASS_SECONDS) -> Any:
        """
        Wait until `/readyz` reports that the permissions are known to be correct.
        """
        return self.wait_until_ready(timeout_seconds).json()

    def until_good(self) -> Self:
        """
        Wait until the permissions are known to be correct, and return this process.
        """
        self.wait_until_good()
        return self

    def shortfall(self) -> str:
        """
        Return what `/readyz` says is left although it is ready.
        """
        return str(self.get("/readyz").json()["shortfall"])

    def wait_until_judged(self) -> None:
        """
        Wait until the permissions are correct, and Airflow has judged each change.

        Ready alone is not enough for a test that changes rows next: they could change
        under a pass, whose two looks would then be the same.
        """
        self.wait_until_good()
        wait_until(
            lambda: "yet to judge" not in self.shortfall(), "judged", PASS_SECONDS
        )

    def wait_for_pass(self, after: int = 0, **match: Any) -> Event:
        """
        Wait for the end of a pass and return its line.
        """
        return self.wait_for_event("pass_finished", PASS_SECONDS, after, **match)

    def sample(self, name: str, **labels: str) -> float:
        """
        Return a sample of `/metrics` with these labels and `sidecar`.
        """
        shown = {"sidecar": "sync-perm", **labels}
        inside = ",".join(f'{key}="{shown[key]}"' for key in sorted(shown))
        return self.metrics()[f"{name}{{{inside}}}"]

    def quiet_polls(self) -> float:
        """
        Return the number of cycles that found nothing to do; 0 before the first has
        ended.
        """
        return self.metrics().get(
            'sidecar_cycles_total{result="unchanged",sidecar="sync-perm"}', 0
        )

    def children(self) -> list[int]:
        """
        Return all current descendants of the supervisor.
        """
        return descendants_of(self.pid)


def run_command(
    name: str,
    airflow: Airflow,
    url: str | None,
    home: Path,
    settings: Mapping[str, str] = {},
) -> subprocess.CompletedProcess[str]:
    """
    Run `sync-perm check` or `sync-perm diff`, with its options, to its end.
    """
    command = Command(
        [str(SYNC_PERM), *name.split()],
        {**airflow.environment(url, home), "TMPDIR": str(home), **settings},
    )
    code = command.wait()
    witness = Witness(SYNC_PERM)
    witness.output(command.out + command.err)
    witness.end(code)
    return subprocess.CompletedProcess((), code, command.out, command.err)


def descendants_of(pid: int) -> list[int]:
    """
    Return all current descendants of a process.
    """
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants_of(child)]
    return found


def command_line(pid: int) -> str:
    """
    Return the arguments of a process; empty if it has ended.
    """
    with suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode()
            .strip()
        )
    return ""


def is_alive(pid: int) -> bool:
    """
    Whether a process exists and is not a zombie.
    """
    with suppress(OSError):
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    return False


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """
    Send a signal to processes, some of which may have ended.
    """
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
