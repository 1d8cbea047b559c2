"""
A process that runs cycles of a sidecar step by step, as a test directs it.

Imports take longer than a cycle, so each life of a sidecar is a fork of a process that
has imported everything. It runs the cycles itself, through the protocol that the loop
uses, so only that protocol is assumed of the sidecar.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NoReturn, Self

from sidecar_runtime import logs
from sidecar_runtime.aws import credentials
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests import Facts
from tests.support.dialogue import Dialogue
from tests.support.each_call.calls import CRASHED, Calls
from tests.support.machine.descriptors import held

SIDECARS = {
    "s3-sync": "s3_sync.command",
    "kerberos": "kerberos_sidecar.cycle",
    "git-sync-wrapper": "git_sync_wrapper.sidecar",
}
"""The module of each sidecar that imports all others."""
MOST_CYCLES = 8
NO_FAULT = (0, "")
Fault = tuple[int, str]
"""The number of the call, from 1, and what happens there; see `Calls.arm`."""


class Stage(Dialogue):
    """
    The director's side: starts the process, and one life of a sidecar after the other.
    """

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.support.each_call.stage"])

    def open(self, sidecar: str, environment: Mapping[str, str]) -> Life:
        """
        Begin a life of a sidecar; its first cycle opens the volume.
        """
        return Life(self, self.ask({"sidecar": sidecar, "environment": environment}))


class Life:
    """
    One process of a sidecar.

    Attributes:
        last: The answer to the last order; see :meth:`cycle`.
        last_fault: The call that failed last, in this life; empty if none did.
    """

    def __init__(self, stage: Stage, first: Facts) -> None:
        self._stage = stage
        self.last = first
        self.last_fault = ""
        assert "opened" in first, first

    def cycle(self, fault: Fault = NO_FAULT) -> Facts:
        """
        Run one cycle.

        Returns:
            ``result`` (or the name of what it raised), ``reason``, ``calls``, ``fired``
            (the call that failed), ``ready``, ``problem``, ``shortfall`` and
            ``descriptors`` (how many are open); after a crash only ``ended``, the exit
            code.
        """
        self.last = self._stage.ask({"fault": fault})
        self.last_fault = self.last.get("fired") or self.last_fault
        return self.last

    def settle(self) -> list[str]:
        """
        Run cycles until two in a row change nothing, and return their results.
        """
        results: list[str] = []
        while results[-2:] != ["unchanged"] * 2 and len(results) < MOST_CYCLES:
            results.append(self.cycle()["result"])
        return results

    @property
    def has_crashed(self) -> bool:
        return self.last.get("ended") == CRASHED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """
        End the process as SIGKILL does: the kernel cleans up, nobody else.
        """
        if "ended" not in self.last:
            self.last = self._stage.ask({"end": True})


def _serve() -> None:
    """
    Fork for each life, and pass on its end. The fork reads the orders meanwhile.
    """
    answer = credentials.ask_child
    asked: dict[str, Facts] = {}

    def ask_once(
        question: str, seconds: float, fence: Fence, prepare: Any = bool
    ) -> Facts:
        return asked.get(question) or answer(question, seconds, fence, prepare)

    credentials.ask_child = ask_once
    while order := _read():
        environment = order["environment"]
        import_module(SIDECARS[order["sidecar"]])
        gc.freeze()  # a life looks only at what is its own
        if order["sidecar"] == "s3-sync" and not asked:
            os.environ.update(environment)
            asked["credentials"] = answer("credentials", 20, Fence())
        pid = os.fork()
        if not pid:
            _live(order["sidecar"], environment)
        _, status = os.waitpid(pid, 0)
        _say({"ended": os.waitstatus_to_exitcode(status)})


def _live(sidecar: str, environment: Mapping[str, str]) -> NoReturn:
    os.environ.clear()
    os.environ.update(environment)
    calls = Calls()
    session = None
    acting = _make(sidecar)
    _say({"opened": True})
    while "fault" in (order := _read()):
        fence = Fence(is_asked_for=True, in_flight_seconds=0)
        at, kind = order["fault"]
        calls.arm(at, kind, fence.revoke)
        found: Facts = {"reason": ""}
        try:
            session = session or acting.begin()
            outcome = session.cycle(fence)
            found["result"] = outcome.result
            found["reason"] = outcome.reason
        except SidecarError as error:
            found |= {"result": "failed", "reason": error.reason}
        except (CycleAbandoned, asyncio.CancelledError):
            found["result"] = "abandoned"
        except Exception as error:  # noqa: BLE001 - the test says which call it was
            found["result"] = f"{type(error).__name__}: {error}"
        calls.disarm()
        gc.collect()
        readiness = acting.readiness()
        # sockets of connections come and go
        files = [path for path in held("") if not path.startswith("socket:")]
        _say(
            found
            | {
                "calls": calls.count,
                "fired": calls.fired,
                "ready": readiness.ready,
                "problem": str(readiness.problem or ""),
                "shortfall": readiness.shortfall,
                "descriptors": len(files),
            }
        )
    os._exit(0)


def _make(sidecar: str) -> Any:
    """
    Return a sidecar with the settings of the environment, as its command makes it.
    """
    logs.configure("error", sys.stderr, for_people=True)
    if sidecar == "s3-sync":
        from s3_sync.command import S3Sync
        from s3_sync.metrics import SyncMetrics
        from s3_sync.settings import load_settings

        settings, _ = load_settings(os.environ)
        return S3Sync(settings, SyncMetrics())
    if sidecar == "kerberos":
        from kerberos_sidecar import cycle, metrics
        from kerberos_sidecar import settings as kerberos

        known, _ = kerberos.load_settings(os.environ)
        return cycle.KerberosSidecar(known, metrics.KerberosMetrics())
    from git_sync_wrapper.cycle import Session
    from git_sync_wrapper.options import read_options
    from git_sync_wrapper.settings import load_settings as load_wrapper
    from git_sync_wrapper.sidecar import GitSyncWrapper, WrapperMetrics, join

    own, _ = load_wrapper(os.environ)
    parts = join(own, read_options([], os.environ), WrapperMetrics())
    return GitSyncWrapper(parts, lambda: Session(parts))


def _read() -> Facts:
    """
    Return the next order; empty at the end. Unbuffered: the fork reads on after it.
    """
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    found: Facts = json.loads(line or b"{}")
    return found


def _say(answer: Mapping[str, object]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve()
