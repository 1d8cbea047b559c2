"""
The metrics of the kerberos sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable

from kerberos_sidecar.account import Account
from sidecar_runtime.metrics import Family, Metrics

_LABELS = ("principal", "ccache")


class KerberosMetrics(Metrics):
    """
    The common metrics, and the sidecar's own with the principal and the ccache path as labels.
    """

    def __init__(self, version: str, revision: str) -> None:
        super().__init__("kerberos", version, revision)
        self._shown: dict[str, tuple[str, str]] = {}
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

    def record(self, account: Account, seconds: float) -> None:
        """
        Count a published ticket, and record the seconds that it took to acquire.
        """
        self.last_publish.set_to_current_time()  # the cycle fails if another principal does
        labels = str(account.state.principal), account.entry.ccache
        self._acquired.labels(*labels).inc()
        self._duration.labels(*labels).set(seconds)

    def show(self, accounts: Iterable[Account]) -> None:
        """
        Update the gauges of each ccache whose full principal is known.
        """
        gauges = (self._expiry, self._lifetime, self._offset, self._kvno)
        for account in accounts:
            state, ticket = account.state, account.found.ticket
            if state.principal is None or not state.principal.realm:
                continue
            labels = str(state.principal), account.entry.ccache
            if (before := self._shown.get(account.entry.ccache, labels)) != labels:
                for family in (*gauges, self._duration):
                    family.remove(*before)
            self._shown[account.entry.ccache] = labels
            facts = (0.0, 0.0, 0.0)
            if ticket is not None:
                facts = (ticket.ends_at, ticket.lifetime_seconds, ticket.clock_offset_seconds)
            values = (*facts, state.kvno)
            for family, value in zip(gauges, values, strict=True):
                family.labels(*labels).set(value)

    def _gauge(self, name: str, text: str) -> Family:
        return self.family("gauge", name, text, *_LABELS)
