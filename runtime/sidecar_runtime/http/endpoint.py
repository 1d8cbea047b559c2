"""
Serves /healthz, /readyz, /metrics and the status page on one port; makes no decisions.
"""

from http import HTTPStatus
from typing import NamedTuple

from sidecar_runtime.errors import json_text
from sidecar_runtime.health import About, Health, Sidecar
from sidecar_runtime.http.listener import Answer, Listener, listen
from sidecar_runtime.http.status import page, readiness_facts, status
from sidecar_runtime.metrics import Metrics


class Endpoint(NamedTuple):
    """
    What a sidecar answers to HTTP requests.

    Args:
        shows_status: Whether to serve the status page.
    """

    about: About
    health: Health
    sidecar: Sidecar
    metrics: Metrics
    shows_status: bool = True

    def start(self, bind: tuple[str, int], setting: str) -> None:
        """
        Serve an address, as :func:`sidecar_runtime.http.listener.listen` describes it.

        Raises:
            SettingsError: The address cannot be bound.
            RuntimeError: No thread can be started.
        """
        Listener(listen(bind, setting), self.answer).start()

    def answer(self, path: str) -> Answer:
        """
        Return the answer to a path, with or without a query.
        """
        match path.partition("?")[0]:
            case "/healthz":
                is_alive = self.health.is_alive
                age = round(self.health.beat_age_seconds, 1)
                return _json(
                    {"alive": is_alive, "heartbeat_age_seconds": age}, is_good=is_alive
                )
            case "/readyz":
                facts = readiness_facts(self.health, self.sidecar)
                return _json(facts, is_good=facts["ready"])
            case "/metrics":
                readiness = self.sidecar.readiness()
                self.metrics.show_readiness(
                    is_ready=readiness.ready, revision=readiness.revision
                )
                told = self.health.told(readiness)
                self.metrics.show_reason(told.result, told.why, told.since)
                return Answer(HTTPStatus.OK, *self.metrics.answer())
            case "/" if self.shows_status:
                facts = status(self.about, self.health, self.sidecar)
                return Answer(HTTPStatus.OK, page(facts), "text/html; charset=utf-8")
            case "/status" if self.shows_status:
                return _json(status(self.about, self.health, self.sidecar), indent=2)
        return Answer(HTTPStatus.NOT_FOUND, b'{"error": "not found"}\n')


def _json(facts: object, *, is_good: bool = True, indent: int | None = None) -> Answer:
    body = f"{json_text(facts, indent=indent)}\n".encode()
    return Answer(HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE, body)
