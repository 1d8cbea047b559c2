"""
The metrics of the kerberos sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable

from kerberos_sidecar.account import Account
from kerberos_sidecar.principal import Principal
from sidecar_runtime.metrics import Family, Metrics

_LABELS = ("principal", "ccache")


class KerberosMetrics(Metrics):
    """
    The common metrics, and the sidecar's own with the principal and the ccache path as labels.
    """

    def __init__(self, version: str, revision: str) -> None:
        super().__init__("kerberos", version, revision)
        text = "Tickets acquired and published."
        self._acquired = self.family("counter", "kerberos_acquired_tickets_total", text, *_LABELS)
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

    def record(self, principal: Principal, ccache: str, seconds: float) -> None:
        """
        Count a published ticket, and record the seconds that it took to acquire.
        """
        self.last_publish.set_to_current_time()  # the cycle fails if another principal does
        self._acquired.labels(str(principal), ccache).inc()
        self._duration.labels(str(principal), ccache).set(seconds)

    def show(self, accounts: Iterable[Account]) -> None:
        """
        Update the gauges of each ccache whose full principal is known.
        """
        for account in accounts:
            if not account.realm:
                continue
            ticket, labels = account.found.ticket, (str(account.principal), account.entry.ccache)
            self._expiry.labels(*labels).set(ticket.ends_at if ticket else 0)
            self._lifetime.labels(*labels).set(ticket.lifetime_seconds if ticket else 0)
            self._offset.labels(*labels).set(ticket.clock_offset_seconds if ticket else 0)
            self._kvno.labels(*labels).set(account.kvno)
            for family in (self._expiry, self._lifetime, self._offset, self._kvno, self._duration):
                for former in [
                    one for one in family.series if one[1] == labels[1] and one != labels
                ]:
                    family.remove(*former)

    def _gauge(self, name: str, text: str) -> Family:
        return self.family("gauge", name, text, *_LABELS)
