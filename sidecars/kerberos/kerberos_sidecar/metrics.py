"""
The metrics of the kerberos sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kerberos_sidecar.krb5.kdcs import Heard
from kerberos_sidecar.slot import Slot
from sidecar_runtime.metrics import Family, Metrics

_LABELS = ("principal", "ccache")
_KDC_LABELS = ("realm", "kdc")


class KerberosMetrics(Metrics):
    """
    The common metrics, and the sidecar's own with the principal and the ccache path as labels.
    """

    def __init__(self, version: str, revision: str) -> None:
        super().__init__("kerberos", version, revision)
        self._shown: dict[str, tuple[str, str]] = {}
        self._acquired = self.family(
            "counter",
            "kerberos_acquired_tickets_total",
            "Tickets acquired and published.",
            *_LABELS,
        )
        self._expiry = self._gauge(
            "kerberos_ticket_expiry_timestamp_seconds",
            "Unix time when the published ticket expires, by this node's clock; 0 without one.",
        )
        self._lifetime = self._gauge(
            "kerberos_ticket_lifetime_seconds", "Life of the published ticket, from start to end."
        )
        self._duration = self._gauge(
            "kerberos_acquire_duration_seconds", "Time that it took to acquire the last ticket."
        )
        self._kvno = self._gauge(
            "kerberos_keytab_kvno",
            "Newest version (kvno) of the principal's keys in the keytab; 0 without a usable one.",
        )
        self._offset = self._gauge(
            "kerberos_clock_offset_seconds", "How far the KDC's clock is ahead of this node's."
        )
        self._up = self.family(
            "gauge",
            "kerberos_kdc_up",
            "1 if the KDC answered the last request to it; absent before the first request.",
            *_KDC_LABELS,
        )
        self._asked = self.family(
            "gauge",
            "kerberos_kdc_last_request_timestamp_seconds",
            "Unix time of the last request to the KDC: while one answers, the rest are not asked.",
            *_KDC_LABELS,
        )
        self._known_kdcs: set[tuple[str, str]] = set()

    def record(self, slot: Slot, seconds: float) -> None:
        """
        Count a published ticket, and record the seconds that it took to acquire.
        """
        self.last_publish.set_to_current_time()  # the cycle fails if another principal does
        labels = self._labels(slot)
        self._acquired.labels(*labels).inc()
        self._duration.labels(*labels).set(seconds)

    def show(self, slots: Iterable[Slot]) -> None:
        """
        Update the gauges of each ccache whose full principal is known.
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
        Update the gauges of each KDC, by realm and KDC, from its last answer or failure.
        """
        shown = {
            (realm, kdc): one for realm, kdcs in dict(heard).items() for kdc, one in kdcs.items()
        }
        for labels in self._known_kdcs - shown.keys():
            self._up.remove(*labels)
            self._asked.remove(*labels)
        self._known_kdcs = set(shown)
        for labels, one in shown.items():
            self._up.labels(*labels).set(not one.said)
            self._asked.labels(*labels).set(one.at)

    def _forget(self, labels: tuple[str, str]) -> None:
        """
        Remove the gauges of a ccache under its former principal.
        """
        for family in (self._expiry, self._lifetime, self._offset, self._kvno, self._duration):
            family.remove(*labels)

    def _gauge(self, name: str, text: str) -> Family:
        return self.family("gauge", name, text, *_LABELS)

    def _labels(self, slot: Slot) -> tuple[str, str]:
        return str(slot.principal), slot.entry.ccache
