"""
State of the kerberos sidecar that outlives a cycle and its thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from kerberos_sidecar.cycle import Session, Shared
from kerberos_sidecar.inotify import Folders
from kerberos_sidecar.metrics import KerberosMetrics
from kerberos_sidecar.settings import Settings
from kerberos_sidecar.slot import Slot, revision_of
from kerberos_sidecar.source import Source, Stamp
from sidecar_runtime.health import Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.sidecar import Names

# How often keytabs and ccaches are looked at for what inotify does not see: network file systems.
POLL_SECONDS = 10.0
# The least time between two looks.
PAUSE_SECONDS = 0.2

log = get_logger("sidecar")


class KerberosSidecar:
    """
    The sidecar that the loop runs.
    """

    def __init__(
        self, settings: Settings, metrics: KerberosMetrics, shared: Shared | None = None
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._watched = Folders()
        self._shared = shared or Shared()
        self._shared.settled = self._watched.wake
        ccaches = [entry.ccache for entry in settings.entries]
        self._slots = tuple(
            Slot(entry, Source(entry, settings.keytab_dir, ccaches)) for entry in settings.entries
        )
        for slot in self._slots:
            slot.read_principal()

    def begin(self) -> Session:
        return Session(self._settings, self._metrics, self._slots, self._shared)

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
        Return what is known of each ccache, by its path, and of the KDCs of each realm.
        """
        at = time.monotonic()
        details: dict[str, object] = {slot.entry.ccache: slot.details(at) for slot in self._slots}
        for realm, heard in dict(self._shared.kdcs.heard).items():
            details[f"KDCs of {realm}"] = Names({kdc: str(one) for kdc, one in heard.items()})
        return details

    def watch(self, wake: Callable[[], None], poll_seconds: float = POLL_SECONDS) -> None:
        """
        Ask for a cycle when a ticket is due, a keytab changes or a ccache is lost, from a thread.

        Args:
            poll_seconds: How often to look for what the kernel does not tell.
        """
        self._shared.wake = wake
        for slot in self._slots:
            self._warn(slot)
        threading.Thread(
            target=self._watch, args=(wake, poll_seconds), name="watch", daemon=True
        ).start()

    def _watch(self, wake: Callable[[], None], poll_seconds: float) -> None:
        watched, folders, seen = self._watched, self._folders(), self._stamps()
        wait_seconds = 0.0
        while True:
            watched.wait(folders, wait_seconds)
            time.sleep(PAUSE_SECONDS)  # whoever writes there all the time does not cost a core
            stamps, at, now = self._stamps(), time.monotonic(), time.time()
            slots = zip(self._slots, stamps, strict=True)
            if stamps != seen:
                log.info("keytab_changed")
                folders = self._folders()
            if stamps != seen or any(slot.is_due(stamp, at, now) for slot, stamp in slots):
                wake()
            seen = stamps
            next_at = [slot.next_at for slot in self._slots if slot.is_idle]
            left = min(next_at, default=float("inf")) - time.monotonic()
            wait_seconds = min(poll_seconds, max(0.0, left))

    def _stamps(self) -> list[Stamp]:
        return [slot.source.stamp() for slot in self._slots]

    def _folders(self) -> set[str]:
        """
        Return where ccaches and keytabs are; a Secret's file leads to another folder.
        """
        ccaches = {os.path.dirname(slot.entry.ccache) for slot in self._slots}
        named = [slot.entry.keytab for slot in self._slots if slot.entry.keytab]
        keytabs = {os.path.dirname(path) for path in (*named, *map(os.path.realpath, named))}
        folder = set() if len(named) == len(self._slots) else {self._settings.keytab_dir}
        return ccaches | keytabs | folder

    def _warn(self, slot: Slot) -> None:
        """
        Warn where who reads the ccache can read the keytab, as in the published example, and where
        the group that may read it cannot come to it.
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
        if problem := slot.published.closed_folder():
            log.warning(
                "folder_closed",
                ccache=slot.entry.ccache,
                problem=problem,
                advice="Let the group enter it (g+x), or set KERBEROS_CCACHE_MODE to 0600 where "
                "consumers have the uid of this container.",
            )
