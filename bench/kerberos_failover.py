"""
Measure the time to a first ticket past silent KDCs: with the sidecar, kinit and k5start.

The sidecar's time excludes the start of the process, because a daemon starts only once. Nearly all
of the time is waiting, so all cases run in parallel.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.report import seconds, table
from tests.support.kerberos.kdc import PATH
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site

GIVEN_UP_SECONDS = 60.0
PEERS = ("kinit", "k5start")


@dataclass(frozen=True)
class World:
    """
    A number of silent KDCs, which accept everything but never reply, before one that answers.
    """

    silent: int
    transport: str

    def __str__(self) -> str:
        """
        Return the name for the table.
        """
        return f"{self.silent} silent, {self.transport} first"


WORLDS = tuple(World(silent, transport) for transport in ("UDP", "TCP") for silent in (1, 3, 5))
Took = Mapping[World, Mapping[str, float | None]]
"""Seconds by tool; None = no ticket within `GIVEN_UP_SECONDS`."""


def failover(here: Site, ours: str) -> Took:
    """
    Measure each tool in each world.

    Args:
        ours: The sidecar's name in the table.
    """
    with ExitStack() as stack, ThreadPoolExecutor(len(WORLDS) * 3) as threads:
        pending = {}
        for number, world in enumerate(WORLDS):
            silent = [stack.enter_context(KdcProxy(0)) for _ in range(world.silent)]
            for one in silent:
                one.behavior = "silent"
            limit = "1" if world.transport == "TCP" else "1465"
            config = here.kdc.client_config(
                here.folder / f"failover-{number}.conf",
                (*(one.address for one in silent), here.kdc.address),
                {"udp_preference_limit": limit},
            )
            ccache = here.folder / f"failover-{number}"
            pending[world] = {
                ours: threads.submit(_sidecar, here, config, Path(f"{ccache}-ours")),
                **{
                    peer: threads.submit(_run, here, config, command)
                    for peer, command in _peers(here, ccache).items()
                    if shutil.which(peer, path=PATH)
                },
            }
        return {
            world: {tool: one.result() for tool, one in tools.items()}
            for world, tools in pending.items()
        }


def failover_table(took: Took, ours: str) -> str:
    """
    Return a table of seconds by world.
    """
    tools = [ours, *PEERS]
    rows = [
        [str(world), *(_shown(found[tool]) if tool in found else "not installed" for tool in tools)]
        for world, found in took.items()
    ]
    return table(["KDCs before the one that answers", f"**{ours}**", *PEERS], rows)


def _shown(value: float | None) -> str:
    return f"none in {GIVEN_UP_SECONDS:.0f} s" if value is None else seconds(value)


def _peers(here: Site, ccache: Path) -> dict[str, list[str]]:
    keytab = str(here.keytab)
    return {
        "kinit": ["kinit", "-k", "-t", keytab, "-c", f"{ccache}-kinit", here.principal],
        "k5start": ["k5start", "-q", "-f", keytab, "-k", f"{ccache}-k5start", here.principal],
    }


def _sidecar(here: Site, config: Path, ccache: Path) -> float | None:
    daemon = here.sidecar(
        KRB5_CONFIG=str(config), KERBEROS_CCACHE=str(ccache), KERBEROS_ONE_SHOT="true"
    )
    with daemon:
        daemon.wait_for_exit(2 * GIVEN_UP_SECONDS)
        took = [event["duration_seconds"] for event in daemon.find_events("ticket_acquired")]
        return took[0] if took else None


def _run(here: Site, config: Path, command: Sequence[str]) -> float | None:
    began = time.perf_counter()
    try:
        subprocess.run(
            command,
            env={"PATH": PATH, "KRB5_CONFIG": str(config)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIVEN_UP_SECONDS,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return time.perf_counter() - began
