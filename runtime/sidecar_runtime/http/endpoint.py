"""
Serves /healthz, /readyz, /metrics and the status page on one port; makes no decisions.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from sidecar_runtime.health import Health
from sidecar_runtime.http.listener import Listener, RequestHandler
from sidecar_runtime.http.page import page
from sidecar_runtime.http.status import About, readiness_body, status
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.sidecar import Sidecar


class Endpoint(Listener):
    """
    The HTTP server of one sidecar.

    Args:
        setting: The name of the setting for `bind`, for the error.

    Raises:
        SettingsError: The address cannot be bound (a port in use, an address of another host).
    """

    def __init__(
        self,
        bind: tuple[str, int],
        setting: str,
        *,
        about: About,
        health: Health,
        sidecar: Sidecar,
        metrics: Metrics,
        show_status: bool,
    ) -> None:
        self.about = about
        self.health = health
        self.sidecar = sidecar
        self.metrics = metrics
        self.show_status = show_status
        super().__init__(bind, setting, _EndpointHandler)


class _EndpointHandler(RequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        endpoint = self.server
        match self.path.partition("?")[0]:
            case "/healthz":
                age = round(endpoint.health.beat_age_seconds, 1)
                body = json.dumps({"alive": endpoint.health.is_alive, "heartbeat_age_seconds": age})
                self.answer(_status(endpoint.health.is_alive), body.encode() + b"\n")
            case "/readyz":
                is_ready, said = readiness_body(endpoint.about, endpoint.health, endpoint.sidecar)
                self.answer(_status(is_ready), said)
            case "/metrics":
                endpoint.metrics.name_published(endpoint.sidecar.readiness().revision)
                self.answer(
                    HTTPStatus.OK, generate_latest(endpoint.metrics.registry), CONTENT_TYPE_LATEST
                )
            case "/" if endpoint.show_status:
                facts = status(endpoint.about, endpoint.health, endpoint.sidecar)
                self.answer(HTTPStatus.OK, page(facts), "text/html; charset=utf-8")
            case "/status" if endpoint.show_status:
                facts = status(endpoint.about, endpoint.health, endpoint.sidecar)
                self.answer(HTTPStatus.OK, json.dumps(facts, indent=2).encode() + b"\n")
            case _:
                self.answer(HTTPStatus.NOT_FOUND, b'{"error": "not found"}\n')


def _status(is_good: bool) -> HTTPStatus:
    return HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
