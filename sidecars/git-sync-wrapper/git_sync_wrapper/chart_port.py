"""
git-sync's own port: the chart's probes ask it, and dashboards that know git-sync's metrics.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.http.listener import Listener, RequestHandler

SETTING = "GITSYNC_HTTP_BIND"
_WHOLE = re.compile(rb"( \d+)\.0$", re.MULTILINE)


class ChartPort(Listener):
    """
    Answers as git-sync does: any path 503 before there is something to read, 200 afterwards.

    Args:
        is_ready: Whether there is something to read.
        registry: git-sync's metrics, at ``/metrics``; None where nobody asked for them.
    """

    def __init__(
        self, bind: str, is_ready: Callable[[], bool], registry: CollectorRegistry | None
    ) -> None:
        self.is_ready = is_ready
        self.registry = registry
        super().__init__(address(bind), SETTING, _EndpointHandler)


class _EndpointHandler(RequestHandler):
    server: ChartPort

    def do_GET(self) -> None:
        port = self.server
        if port.registry is not None and self.path.partition("?")[0] == "/metrics":
            # Whole numbers as Go writes them, for consumers that compare texts.
            told = _WHOLE.sub(rb"\1", generate_latest(port.registry))
            self.answer(HTTPStatus.OK, told, CONTENT_TYPE_LATEST)
        elif port.is_ready():
            self.answer(HTTPStatus.OK, b"", "text/plain")
        else:
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, b"repo is not ready\n", "text/plain")


def address(bind: str) -> tuple[str, int]:
    """
    Read an address as Go writes it: ``:1234``, ``0.0.0.0:1234``, ``[::1]:1234``.

    Raises:
        SettingsError: It is not a valid address.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]*)):(\d{1,5})", bind)
    if match is None or int(match[3]) > 65535:
        raise SettingsError([Problem(SETTING, bind, "is not HOST:PORT or :PORT, such as :1234")])
    return (match[1] or match[2] or ""), int(match[3])
