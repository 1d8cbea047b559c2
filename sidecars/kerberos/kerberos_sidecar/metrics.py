"""
The metrics of the kerberos sidecar.
"""

from __future__ import annotations

from collections.abc import Iterable

from kerberos_sidecar.account import Account
from kerberos_sidecar.principal import Principal
from sidecar_runtime.metrics import Metrics

_LABELS = ("principal", "ccache")
_GAUGES = {
    "kerberos_ticket_expiry_timestamp_seconds": "Unix time when the published ticket expires, by "
    "this node's clock; 0 without one.",
    "kerberos_ticket_lifetime_seconds": "Life of the published ticket, from start to end.",
    "kerberos_clock_offset_seconds": "How far the KDC's clock is ahead of this node's.",
    "kerberos_keytab_kvno": "Newest version (kvno) of the principal's keys in the keytab; 0 "
    "without a usable one.",
    "kerberos_acquire_duration_seconds": "Time that it took to acquire the last ticket.",
}


class KerberosMetrics(Metrics):
    """
    The common metrics, and the sidecar's own with the principal and the ccache path as labels.
    """

    def __init__(self, version: str, revision: str) -> None:
        super().__init__("kerberos", version, revision)
        text = "Tickets acquired and published."
        self._acquired = self.family("counter", "kerberos_acquired_tickets_total", text, *_LABELS)
        self._gauges = [self.family("gauge", *named, *_LABELS) for named in _GAUGES.items()]

    def record(self, principal: Principal, ccache: str, seconds: float) -> None:
        """
        Count a published ticket, and record the seconds that it took to acquire.
        """
        self.last_publish.set_to_current_time()  # the cycle fails if another principal does
        self._acquired.labels(str(principal), ccache).inc()
        self._gauges[-1].labels(str(principal), ccache).set(seconds)

    def show(self, accounts: Iterable[Account]) -> None:
        """
        Update the gauges of each ccache whose full principal is known.
        """
        for account in accounts:
            if not account.realm:
                continue
            found, labels = account.found.ticket, (str(account.principal), account.entry.ccache)
            facts = [0.0, 0.0, 0.0]
            if found is not None:
                facts = [found.ends_at, found.lifetime_seconds, found.clock_offset_seconds]
            for family, value in zip(self._gauges, [*facts, account.kvno], strict=False):
                family.labels(*labels).set(value)
