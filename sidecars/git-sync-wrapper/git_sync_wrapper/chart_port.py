"""
git-sync's own port, for the chart's probes and for dashboards that use git-sync's metrics.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.http.listener import Listener, RequestHandler
from sidecar_runtime.parsers import bind_address

SETTING = "GITSYNC_HTTP_BIND"
_WHOLE = re.compile(rb"( \d+)\.0$", re.MULTILINE)


class ChartPort(Listener):
    """
    Answers like git-sync: 503 on any path until a commit can be read, 200 from then on. The chart
    uses this port for liveness, too, and no restart repairs a damaged commit.

    Args:
        is_ready: Whether a commit can be read.
        registry: git-sync's metrics, at ``/metrics``; None if they are not enabled.
    """

    def __init__(
        self, bind: str, is_ready: Callable[[], bool], registry: CollectorRegistry | None
    ) -> None:
        self.is_ready = is_ready
        self.was_ready = False
        self.registry = registry
        super().__init__(address(bind), SETTING, _EndpointHandler)


class _EndpointHandler(RequestHandler):
    server: ChartPort

    def do_GET(self) -> None:
        port = self.server
        if port.registry is not None and self.path.partition("?")[0] == "/metrics":
            # Write whole numbers as Go does, for consumers that compare text.
            told = _WHOLE.sub(rb"\1", generate_latest(port.registry))
            self.answer(HTTPStatus.OK, told, CONTENT_TYPE_LATEST)
            return
        port.was_ready = port.was_ready or port.is_ready()
        if port.was_ready:
            self.answer(HTTPStatus.OK, b"", "text/plain")
        else:
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, b"repo is not ready\n", "text/plain")


def address(bind: str) -> tuple[str, int]:
    """
    Parse an address in Go's form: ``:1234``, ``0.0.0.0:1234``, ``[::1]:1234``.

    Raises:
        SettingsError: It is not a valid address.
    """
    try:
        return bind_address(bind)
    except ValueError:
        problem = "is not HOST:PORT or :PORT, such as :1234"
        raise SettingsError([Problem(SETTING, bind, problem)]) from None
