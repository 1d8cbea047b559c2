"""
The state of the kerberos sidecar that outlives a cycle and its thread.
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

# How often to check keytabs and ccaches for changes that inotify misses, on network file systems.
POLL_SECONDS = 10.0
# The shortest time between two checks.
PAUSE_SECONDS = 0.2

log = get_logger("sidecar")


class KerberosSidecar:
    """
    The kerberos sidecar, as run by the loop.
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
        Return whether every ccache on the volume is valid now, no matter which process wrote it.
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
        Return the facts about each ccache, by path, and about the KDCs of each realm.
        """
        at = time.monotonic()
        details: dict[str, object] = {slot.entry.ccache: slot.details(at) for slot in self._slots}
        for realm, heard in dict(self._shared.kdcs.heard).items():
            details[f"KDCs of {realm}"] = Names({kdc: str(one) for kdc, one in heard.items()})
        return details

    def watch(self, wake: Callable[[], None], poll_seconds: float = POLL_SECONDS) -> None:
        """
        Start a thread that requests cycles for due tickets, changed keytabs and lost ccaches.

        Args:
            poll_seconds: How often to check for changes that the kernel does not report.
        """
        self._shared.wake = wake
        for slot in self._slots:
            self._warn(slot)
        threading.Thread(
            target=self._watch, args=(wake, poll_seconds, self._stamps()), name="watch", daemon=True
        ).start()

    def _watch(self, wake: Callable[[], None], poll_seconds: float, seen: list[Stamp]) -> None:
        watched, folders = self._watched, self._folders()
        wait_seconds = 0.0
        while True:
            watched.wait(folders, wait_seconds)
            time.sleep(PAUSE_SECONDS)  # limits the CPU cost of constant writes there
            stamps, at, now = self._stamps(), time.monotonic(), time.time()
            slots = zip(self._slots, stamps, strict=True)
            if stamps != seen:
                log.info("keytab_changed")
                folders = self._folders()
            is_due = stamps != seen or any(slot.is_due(stamp, at, now) for slot, stamp in slots)
            if is_due and not self._shared.is_looking:
                wake()
            seen = stamps
            next_at = [slot.next_at for slot in self._slots if slot.is_idle]
            left = min(next_at, default=float("inf")) - time.monotonic()
            wait_seconds = min(poll_seconds, max(0.0, left))

    def _stamps(self) -> list[Stamp]:
        return [slot.source.stamp() for slot in self._slots]

    def _folders(self) -> set[str]:
        """
        Return the folders of ccaches and keytabs; a Secret's file also links to another folder.
        """
        ccaches = {os.path.dirname(slot.entry.ccache) for slot in self._slots}
        named = [slot.entry.keytab for slot in self._slots if slot.entry.keytab]
        keytabs = {os.path.dirname(path) for path in (*named, *map(os.path.realpath, named))}
        folder = set() if len(named) == len(self._slots) else {self._settings.keytab_dir}
        return ccaches | keytabs | folder

    def _warn(self, slot: Slot) -> None:
        """
        Warn if readers of the ccache can also read the keytab, as in the published example, and if
        the group that may read the ccache cannot enter its folder.
        """
        keytab = slot.entry.keytab
        folder = os.path.dirname(keytab) if keytab else self._settings.keytab_dir
        if os.path.realpath(os.path.dirname(slot.entry.ccache)) == os.path.realpath(folder):
            log.warning(
                "keytab_exposed",
                folder=folder,
                ccache=slot.entry.ccache,
                advice="Use two volumes, and mount the keytab's in this container only.",
            )
        if problem := slot.published.closed_folder():
            log.warning(
                "folder_closed",
                ccache=slot.entry.ccache,
                problem=problem,
                advice="Add g+x to the folder, or set KERBEROS_CCACHE_MODE to 0600 if consumers "
                "run with this container's uid.",
            )
