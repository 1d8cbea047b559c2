"""
The metrics of the kerberos sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge

from kerberos_sidecar.ccache import Ticket
from kerberos_sidecar.keytab import Keytab
from kerberos_sidecar.slot import Slot
from sidecar_runtime.metrics import Metrics

_LABELS = ("sidecar", "principal", "ccache")


class KerberosMetrics(Metrics):
    """
    The common metrics and our own, which have the principal and the path of the ccache as labels.
    """

    def __init__(self, version: str, revision: str) -> None:
        super().__init__("kerberos", version, revision)
        self._acquired = Counter(
            "kerberos_acquired_tickets_total",
            "Tickets acquired and published.",
            _LABELS,
            registry=self.registry,
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

    def record(self, slot: Slot, ticket: Ticket, keytab: Keytab, seconds: float) -> None:
        """
        Count a ticket that was published.
        """
        labels = self._labels(slot)
        self._acquired.labels(*labels).inc()
        self._duration.labels(*labels).set(seconds)
        self._kvno.labels(*labels).set(keytab.kvno_of(ticket.principal))

    def show(self, slots: Iterable[Slot]) -> None:
        """
        Show what is on the volume.
        """
        for slot in slots:
            if slot.principal is not None:
                labels = self._labels(slot)
                ticket = slot.published.look().ticket
                self._expiry.labels(*labels).set(ticket.ends_at if ticket else 0)
                self._lifetime.labels(*labels).set(ticket.lifetime_seconds if ticket else 0)
                self._offset.labels(*labels).set(ticket.clock_offset_seconds if ticket else 0)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, _LABELS, registry=self.registry)

    def _labels(self, slot: Slot) -> tuple[str, str, str]:
        return self.sidecar, str(slot.principal), slot.entry.ccache
