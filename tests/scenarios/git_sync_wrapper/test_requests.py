"""
What the receiver of a webhook and the service at `--askpass-url` may answer.
"""

from __future__ import annotations

import threading
from unittest.mock import Mock

import pytest

from git_sync_wrapper.hooks import HookFailed, webhook
from git_sync_wrapper.options import Options
from sidecar_runtime.fence import Fence
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with, drip
from tests.support.http.loopback import (
    Answer,
    Exchange,
    Fault,
    LoopbackServer,
    Request,
)


class Service(LoopbackServer):
    """
    Answers at length.
    """

    def good_answer(self, request: Request) -> Answer:
        return Answer(200, {}, b"username=me\npassword=hush\n" * 100)


@pytest.mark.parametrize(
    ("status", "method"), [(301, "POST"), (303, "GET"), (307, "POST"), (308, "POST")]
)
def test_a_webhook_is_redirected_as_by_git_sync(
    here: GitSite, status: int, method: str
) -> None:
    """An ingress redirects http to https with 308."""
    with Service() as ingress, Service() as service:
        ingress.inject(
            answer_with(Answer(status, {"Location": f"{service.endpoint}/new?a=b"}))
        )
        here.run_once(
            GITSYNC_WEBHOOK_URL=ingress.endpoint.replace("//", "//me:hu%C3%9F@")
        )
        (first,) = ingress.requests
        (last,) = service.requests

    assert ("POST", "/new?a=b", method) == (first.method, last.target, last.method)
    assert here.repository.head() == last.headers["gitsync-hash"]
    assert "Basic bWU6aHXDnw==" == first.headers["authorization"]
    assert "authorization" not in last.headers


def test_a_webhook_without_a_thread_is_a_failed_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nobody expects would end its thread, and liveness the container."""
    monkeypatch.setattr(
        threading.Timer,
        "start",
        Mock(side_effect=RuntimeError("can't start new thread")),
    )
    (hook,) = webhook(Options(webhook_url="http://127.0.0.1:1"))

    with pytest.raises(HookFailed, match="no answer: can't start"):
        hook.run("", "", Fence())


def drip_lines(head: bytes) -> Fault:
    """
    Send one line after the other, as a proxy that keeps its connection alive does.
    """

    def fault(exchange: Exchange) -> None:
        exchange.send_bytes(head)
        for _ in range(90):
            exchange.send_bytes(b"X: still here\r\n")
            exchange.pause(0.3)

    return fault


BODY = drip(1, 0.3)


@pytest.mark.parametrize(
    "never_ends",
    [
        BODY,
        drip_lines(b"HTTP/1.1 200 OK\r\n"),
        drip_lines(
            b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 9999\r\n\r\n"
        ),
        drip_lines(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"),
    ],
)
def test_an_answer_that_never_ends_holds_up_no_later_commit(
    here: GitSite, never_ends: Fault
) -> None:
    with Service() as service:
        service.inject(never_ends)
        wrapper = here.wrapper(GITSYNC_WEBHOOK_URL=service.endpoint)
        service.wait_for()
        newest = here.commit_revision(2)

        service.wait_for(lambda request: newest == request.headers["gitsync-hash"])
        if never_ends is not BODY:
            failed = wrapper.wait_for_event("hook_failed")
            assert "no whole answer within 1 s" in failed["error"], failed
        else:  # only the status is waited for
            assert [] == wrapper.find_events("hook_failed")


def test_a_login_that_never_ends_fails_the_cycle(here: GitSite) -> None:
    with Service() as service:
        service.inject(BODY)
        wrapper = here.wrapper(GITSYNC_ASKPASS_URL=service.endpoint)

        failed = wrapper.wait_for_event("cycle_failed")

    assert "askpass_failed" == failed["reason"], failed
    assert "no whole answer within 10 s" in failed["error"], failed
