"""
git-sync's own port, for the chart's probes and for dashboards that use git-sync's
metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from sidecar_runtime.http.listener import Answer, Listener, listen
from sidecar_runtime.metrics import Registry


class ChartPort(Listener):
    """
    Answers like git-sync: 503 on any path until a commit can be read, 200 from then on.
    The chart uses this port for liveness, too, and no restart repairs a damaged commit.

    Args:
        is_ready: Whether a commit can be read.
        metrics: git-sync's metrics, at ``/metrics``; None if they are not enabled.
    """

    def __init__(
        self,
        bind: tuple[str, int],
        is_ready: Callable[[], bool],
        metrics: Registry | None,
    ) -> None:
        self._is_ready = is_ready
        self._was_ready = False
        self._metrics = metrics
        super().__init__(listen(bind, "GITSYNC_HTTP_BIND"), self._find)

    def _find(self, path: str) -> Answer:
        if self._metrics and path.partition("?")[0] == "/metrics":
            return Answer(HTTPStatus.OK, *self._metrics.answer())
        self._was_ready = self._was_ready or self._is_ready()
        if self._was_ready:
            return Answer(HTTPStatus.OK, b"", "text/plain")
        return Answer(
            HTTPStatus.SERVICE_UNAVAILABLE, b"repo is not ready\n", "text/plain"
        )
