"""
The metrics of the kerberos sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from kerberos_sidecar.krb5.kdcs import Heard
from kerberos_sidecar.slot import Slot
from sidecar_runtime.metrics import Metrics

_LABELS = ("principal", "ccache")
_KDC_LABELS = ("realm", "kdc")


class KerberosMetrics(Metrics):
    """
    The common metrics and our own, which have the principal and the path of the ccache as labels.
    """

    def __init__(self, version: str, revision: str, *, is_served: bool = True) -> None:
        super().__init__("kerberos", version, revision, is_served=is_served)
        self._shown: dict[str, tuple[str, str, str]] = {}
        self._acquired = self.family(
            "Counter",
            "kerberos_acquired_tickets_total",
            "Tickets acquired and published.",
            *_LABELS,
        )
        self._expiry = self._gauge(
            "kerberos_ticket_expiry_timestamp_seconds",
            "Unix time at which the published ticket ends, by our clock; 0 where there is none.",
        )
        self._lifetime = self._gauge(
            "kerberos_ticket_lifetime_seconds", "Life of the published ticket from its start."
        )
        self._duration = self._gauge(
            "kerberos_acquire_duration_seconds", "Time that the last ticket took, from the KDC on."
        )
        self._kvno = self._gauge(
            "kerberos_keytab_kvno", "Newest version of the principal's keys in the keytab."
        )
        self._offset = self._gauge(
            "kerberos_clock_offset_seconds", "How far the KDC's clock is ahead of ours."
        )
        self._up = self.family(
            "Gauge",
            "kerberos_kdc_up",
            "1 if the KDC answered when it was last asked; not there before.",
            *_KDC_LABELS,
        )
        self._asked = self.family(
            "Gauge",
            "kerberos_kdc_asked_timestamp_seconds",
            "Unix time at which it was last asked: nobody asks the others while one answers.",
            *_KDC_LABELS,
        )
        self._known_kdcs: set[tuple[str, str, str]] = set()

    def record(self, slot: Slot, seconds: float) -> None:
        """
        Count a ticket that was published, and the seconds that it took.
        """
        labels = self._labels(slot)
        self._acquired.labels(*labels).inc()
        self._duration.labels(*labels).set(seconds)

    def show(self, slots: Iterable[Slot]) -> None:
        """
        Show what is known of each ccache, as soon as it is known whose it is.
        """
        for slot in slots:
            if slot.principal is None or not slot.principal.realm:
                continue
            labels = self._labels(slot)
            if (before := self._shown.get(slot.entry.ccache, labels)) != labels:
                self._forget(before)
            self._shown[slot.entry.ccache] = labels
            ticket = slot.published.look().ticket
            self._expiry.labels(*labels).set(ticket.ends_at if ticket else 0)
            self._lifetime.labels(*labels).set(ticket.lifetime_seconds if ticket else 0)
            self._offset.labels(*labels).set(ticket.clock_offset_seconds if ticket else 0)
            self._kvno.labels(*labels).set(slot.kvno)

    def show_kdcs(self, heard: Mapping[str, Mapping[str, Heard]]) -> None:
        """
        Show how each KDC behaved when it was last asked, by realm and KDC.
        """
        shown = {
            (self.sidecar, realm, kdc): one
            for realm, kdcs in dict(heard).items()
            for kdc, one in kdcs.items()
        }
        for labels in self._known_kdcs - shown.keys():
            self._up.remove(*labels)
            self._asked.remove(*labels)
        self._known_kdcs = set(shown)
        for labels, one in shown.items():
            self._up.labels(*labels).set(not one.said)
            self._asked.labels(*labels).set(one.at)

    def _forget(self, labels: tuple[str, str, str]) -> None:
        """
        Drop what was shown under a name that is not that ccache's any more.
        """
        for family in (self._expiry, self._lifetime, self._offset, self._kvno, self._duration):
            with suppress(KeyError):
                family.remove(*labels)

    def _gauge(self, name: str, text: str) -> Any:
        return self.family("Gauge", name, text, *_LABELS)

    def _labels(self, slot: Slot) -> tuple[str, str, str]:
        return self.sidecar, str(slot.principal), slot.entry.ccache
