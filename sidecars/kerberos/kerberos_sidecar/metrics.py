"""
What is measured: the common metrics, and the sidecar's own for each ccache.
"""

from collections.abc import Iterable

from kerberos_sidecar.account import Account
from kerberos_sidecar.formats import Principal, Ticket
from sidecar_runtime.errors import printable
from sidecar_runtime.metrics import Metric, Metrics

NO_TICKET = Ticket(Principal(()), 0, 0, 0.0)


class KerberosMetrics(Metrics):
    """
    The common metrics, and the sidecar's own with the principal and the ccache path as
    labels.
    """

    def __init__(self, *, is_read: bool = True) -> None:
        super().__init__("kerberos", is_read=is_read)
        self._shown: set[tuple[str, ...]] = set()
        self._acquired = self._of_ccache(
            "kerberos_acquired_tickets_total",
            "Tickets acquired and published.",
            "counter",
        )
        self._expiry = self._of_ccache(
            "kerberos_ticket_expiry_timestamp_seconds",
            "Unix time when the published ticket expires, by this node's clock; 0 "
            "without one.",
        )
        self._lifetime = self._of_ccache(
            "kerberos_ticket_lifetime_seconds",
            "Life of the published ticket, from start to end.",
        )
        self._clock_offset = self._of_ccache(
            "kerberos_clock_offset_seconds",
            "How far the KDC's clock is ahead of this node's.",
        )
        self._kvno = self._of_ccache(
            "kerberos_keytab_kvno",
            "Newest version (kvno) of the principal's keys in the keytab; 0 without a "
            "usable one.",
        )
        self._duration = self._of_ccache(
            "kerberos_acquire_duration_seconds",
            "Time that it took to acquire the last ticket.",
        )

    def record(self, account: Account, seconds: float) -> None:
        """
        Count a published ticket, and record the seconds that it took to acquire.
        """
        # the cycle fails if another principal does
        self.last_publish.set_to_current_time()
        labels = self._labels(account)
        self._acquired.labels(*labels).inc()
        self._duration.labels(*labels).set(seconds)

    def show(self, accounts: Iterable[Account]) -> None:
        """
        Update the gauges of each ccache whose full principal is known; remove what is
        about the former first principal of a keytab.
        """
        known = {self._labels(one): one for one in accounts if one.realm}
        for labels in self._shown - known.keys():
            for name, metric in self.metrics.items():
                if name.startswith("kerberos_"):
                    metric.remove(*labels)
        self._shown = set(known)
        for labels, account in known.items():
            ticket = account.found.ticket or NO_TICKET
            self._expiry.labels(*labels).set(ticket.ends_at)
            self._lifetime.labels(*labels).set(ticket.lifetime_seconds)
            self._clock_offset.labels(*labels).set(ticket.clock_offset_seconds)
            self._kvno.labels(*labels).set(account.kvno)

    def _of_ccache(self, name: str, text: str, kind: str = "gauge") -> Metric:
        return self.add(kind, name, text, "principal", "ccache")

    def _labels(self, account: Account) -> tuple[str, ...]:
        return (
            self.sidecar,
            printable(str(account.principal)),
            printable(account.entry.ccache),
        )
