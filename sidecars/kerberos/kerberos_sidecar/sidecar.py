"""
State of the kerberos sidecar that outlives a cycle and its thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from kerberos_sidecar.cycle import Session
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import Settings
from kerberos_sidecar.slot import Slot, revision_of
from kerberos_sidecar.source import Source
from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger

# How often keytabs are looked at while a cycle hangs, or a failure is waited out.
WATCH_SECONDS = 1.0

log = get_logger("sidecar")


class KerberosSidecar:
    """
    The sidecar that the loop runs.
    """

    def __init__(self, settings: Settings, metrics: KerberosMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        ccaches = [entry.ccache for entry in settings.entries]
        self._slots = tuple(
            Slot(entry, Source(entry, settings.keytab_dir, ccaches)) for entry in settings.entries
        )
        for slot in self._slots:
            slot.read_principal()

    def begin(self) -> Session:
        return Session(self._settings, self._metrics, self._slots)

    def readiness(self) -> Readiness:
        """
        Tell whether every ccache on the volume is valid at this moment, whoever wrote it.
        """
        now = time.time()
        problems = [problem for slot in self._slots if (problem := slot.problem_at(now))]
        found = (slot.published.look().published_at for slot in self._slots)
        return Readiness(
            not problems,
            revision_of(self._slots),
            min((moment for moment in found if moment is not None), default=None),
            "; ".join(problems),
        )

    def details(self) -> dict[str, object]:
        """
        Return what is known of each ccache, by its path.
        """
        at = time.monotonic()
        return {slot.entry.ccache: slot.details(at) for slot in self._slots}

    def watch(self, wake: Callable[[], None], every_seconds: float = WATCH_SECONDS) -> None:
        """
        Ask for a cycle when a keytab changes or a ccache is lost, from a thread.

        A person has just fixed something, or consumers have no ticket: neither is to wait until
        the failure of another entry is tried again.
        """
        for slot in self._slots:
            self._warn(slot)
        threading.Thread(
            target=self._watch, args=(wake, every_seconds), name="watch", daemon=True
        ).start()

    def _watch(self, wake: Callable[[], None], every_seconds: float) -> None:
        seen = [slot.source.stamp() for slot in self._slots]
        lost = self._lost()
        while True:
            time.sleep(every_seconds)
            stamps = [slot.source.stamp() for slot in self._slots]
            if stamps != seen:
                log.info("keytab_changed")
                wake()
            seen = stamps
            lost_before, lost = lost, self._lost()
            if lost - lost_before:
                wake()

    def _lost(self) -> set[str]:
        """
        Return the ccaches that hold nothing of use; a ticket that has merely ended does not count.
        """
        return {
            slot.entry.ccache
            for slot in self._slots
            if slot.published.look().problem_at(0.0, slot.principal)
        }

    def _warn(self, slot: Slot) -> None:
        """
        Warn where who reads the ccache can read the keytab, as in the published example.
        """
        keytab = slot.entry.keytab
        folder = os.path.dirname(keytab) if keytab else self._settings.keytab_dir
        if os.path.dirname(slot.entry.ccache) == folder:
            log.warning(
                "keytab_exposed",
                folder=folder,
                ccache=slot.entry.ccache,
                advice="Use two volumes: the keytab's for this container alone.",
            )
