"""
The HTTP server of a sidecar: its answers, clients that behave badly, requests for
revisions.
"""

import contextlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import pytest

from sidecar_runtime import asking
from sidecar_runtime.allowance import Allowance
from sidecar_runtime.asking import MOST, MOST_UNKNOWN, NAME, PERIOD_SECONDS, Asked
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.health import Health, Outcome
from sidecar_runtime.http import listener as http_listener
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.http.listener import CONNECTIONS, Answer, Listener, listen
from sidecar_runtime.metrics import Metrics, Series
from tests.runtime.recording import ABOUT, READY, Log
from tests.support.airflow.asking import ask as ask_socket
from tests.support.daemon import ask
from tests.support.machine.clocks import Clock

LOOPBACK = "127.0.0.1"


@pytest.fixture
def health() -> Health:
    return Health(Clock())


@pytest.fixture
def endpoint(health: Health) -> Endpoint:
    return Endpoint(ABOUT, health, READY, Metrics("box-sync", "1.2.3", "abc"))


# --- answers


def test_text_that_is_not_unicode_is_escaped_in_every_answer(
    endpoint: Endpoint,
) -> None:
    """
    File names that are not UTF-8 have lone surrogates, which strict readers of JSON
    refuse.
    """
    name = "caf\udce9"
    endpoint.health.record(
        Outcome("error", "", {name: 1}, SidecarError("no", name, name)), 0
    )
    endpoint.metrics.failures(name).inc()

    for path in ("/readyz", "/status", "/", "/metrics"):
        text = endpoint.answer(path).body.decode()
        if path in ("/readyz", "/status"):
            text = json.dumps(json.loads(text), ensure_ascii=False).replace(
                "\\\\", "\\"
            )
        assert text.encode()
        assert r"caf\udce9" in text.replace("\\\\", "\\"), path


# --- the server


BIG = os.urandom(1 << 20) * 20
"""More than the kernel buffers for a client that does not read."""


class Server:
    """A listener with a small, a big and a late answer."""

    def __init__(self) -> None:
        listening = listen((LOOPBACK, 0), "HTTP_BIND")
        self.listener = Listener(listening, self.answer)
        self.address: tuple[str, int] = listening.getsockname()
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def answer(self, path: str) -> Answer:
        if path == "/slow":
            self.is_asked.set()
            assert self.may_answer.wait(60)
        return Answer(HTTPStatus.OK, BIG if path == "/big" else b"{}")

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def status(self, path: str = "/") -> int:
        return ask(self.address, path).status


@pytest.fixture
def server(log: Log) -> Iterator[Server]:
    server = Server()
    server.listener.start()
    yield server
    server.listener.close()


def read_all(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while received := client.recv(65536):
            data += received
    return data


def get(path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


# --- binding


def test_an_empty_host_listens_on_ipv4_and_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs a kernel with IPv6")
    with listen(("", 0), "BIND") as listening:
        assert socket.AF_INET6 == listening.family
        assert 0 == listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


# --- clients that behave badly


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHo"])
def test_disconnects_a_client_that_sends_no_complete_request(
    server: Server, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 0.05)
    with server.connect() as client:
        client.sendall(said)
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=range(7),
)
def test_survives_malformed_requests(server: Server, data: bytes) -> None:
    with server.connect() as client:
        with contextlib.suppress(OSError):  # the server may have closed the connection
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(client)

    assert server.status() == 200


def test_header_lines_without_end_are_cut_off(server: Server) -> None:
    """
    Otherwise the thread would read on, and answer nobody.
    """
    with server.connect() as client:
        sent = client.send(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(OSError):  # cut off
            while sent < 64 << 20:
                sent += client.send(b"a\r\n" * 20_000)

    assert sent < 16 << 20
    assert server.status() == 200


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "get"])
def test_refuses_other_methods(server: Server, method: str) -> None:
    with server.connect() as client:
        client.sendall(get().replace(b"GET", method.encode()))
        assert read_all(client).startswith(b"HTTP/1.1 405 ")


def test_silent_clients_neither_block_probes_nor_exceed_the_connection_limit(
    server: Server,
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(server.connect()) for _ in range(CONNECTIONS * 2)
        ]
        for _ in range(5):
            assert server.status() == 200
        # The oldest connection was closed.
        assert read_all(clients[0]) == b""
        clients[-1].sendall(get())
        assert read_all(clients[-1]).startswith(b"HTTP/1.1 200 ")


def test_a_burst_of_silent_clients_does_not_push_out_a_probe_that_was_sent(
    server: Server,
) -> None:
    """The listener gets no CPU for a while, and then finds all of them at once."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server.connect())
        first.sendall(get("/slow"))
        assert server.is_asked.wait(10)
        probe = stack.enter_context(server.connect())
        probe.sendall(get())
        for _ in range(CONNECTIONS * 2):
            stack.enter_context(server.connect())
        server.may_answer.set()

        assert read_all(probe).startswith(b"HTTP/1.1 200 ")
        assert read_all(first).startswith(b"HTTP/1.1 200 ")


def test_an_answer_of_any_size_arrives_and_delays_no_other_client(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 60)  # on a busy machine
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(2)]
        for client in slow:
            client.sendall(get("/big"))
        assert server.status() == 200

        for client in slow:
            assert read_all(client).endswith(BIG)


THERE, AWAY = (f"sha256-{letter * 64}" for letter in "ab")
HOSTILE = [
    "/revisions/../../../etc/passwd",
    "/revisions/current",
    f"/revisions/sha256-{'A' * 64}",
    f"/revisions/sha256-{'a' * 63}",
    f"/revisions/sha256-{'a' * 64}/..",
    f"/revisions/sha256-{'a' * 64}?x=1",
    f"/revisions/{'a' * 5000}",
    "/revisions/\N{LATIN SMALL LETTER A WITH DIAERESIS}",
    f"/other/sha256-{'a' * 64}",
]


def counter() -> Callable[[str], Series]:
    return Metrics("s3-sync", "1", "2").counter_by("result", "asked_total", "…")


@pytest.fixture
def asked() -> Asked:
    return Asked(counter())


class Flood:
    """Consumers that request revisions, at times that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(asking, "Allowance", partial(Allowance, clock=self.clock))
        self.asked = Asked(counter())
        self._numbers = itertools.count()

    def fetched(self, seconds: float = 0.0, *, is_known: bool) -> int:
        """
        Request a hundred other revisions after some seconds; return how many of them a
        cycle has to fetch, which fails.
        """
        self.clock.seconds += seconds
        for _turn in range(100):
            refused = self.asked.ask(f"{next(self._numbers)}", is_known=is_known)
        assert refused is not None and "request_limit" == refused.reason
        waiting = list(self.asked.due(Fence()))
        for revision in waiting:
            with self.asked.answering(revision):
                raise SidecarError("release_missing", "it does not exist")
        return len(waiting)


@pytest.fixture
def flood(monkeypatch: pytest.MonkeyPatch) -> Flood:
    return Flood(monkeypatch)


@pytest.mark.parametrize(("is_known", "most"), [(True, MOST), (False, MOST_UNKNOWN)])
def test_refuses_requests_beyond_the_limit_of_pending_revisions(
    flood: Flood, log: Log, *, is_known: bool, most: int
) -> None:
    """
    Otherwise memory, the log and requests to the source would grow with the requests of
    consumers.
    """
    pauses = (0, 0, PERIOD_SECONDS, PERIOD_SECONDS / 2)
    assert [most, 0, 1, 0] == [
        flood.fetched(seconds, is_known=is_known) for seconds in pauses
    ]
    said = log.events("requested_revision_unavailable")
    limits = [event for event in said if event["reason"] == "request_limit"]
    assert (most + 1 + 2, 2) == (len(said), len(limits))
    assert most == flood.fetched(most * PERIOD_SECONDS, is_known=is_known)


def test_invented_revisions_do_not_hold_up_one_that_the_source_has_told_of(
    flood: Flood,
) -> None:
    assert MOST_UNKNOWN == flood.fetched(is_known=False)

    assert flood.asked.ask("known", is_known=True) is None
    assert ["known"] == list(flood.asked.due(Fence()))


def test_logs_again_only_what_has_changed_about_a_revision(
    asked: Asked, log: Log
) -> None:
    for reason in ("release_missing", "release_missing", "access_denied"):
        with asked.answering(AWAY):
            raise SidecarError(reason, "…")

    said = log.events("requested_revision_unavailable")
    assert ["release_missing", "access_denied"] == [event["reason"] for event in said]


# --- the socket


@pytest.fixture
def store(tmp_path: Path, asked: Asked) -> Iterator[int]:
    """A folder whose socket is served; it contains the revision THERE."""
    store = os.open(tmp_path, os.O_RDONLY)
    asked.follow(store, lambda name: name == THERE, lambda name: name == AWAY)
    yield store
    asked.close()
    os.close(store)


def test_refuses_invalid_paths_and_requests_no_revision(
    asked: Asked, store: int, tmp_path: Path
) -> None:
    assert dict.fromkeys(HOSTILE, 404) == {
        path: ask_socket(tmp_path, path)[0] for path in HOSTILE
    }
    assert 405 == ask_socket(tmp_path, f"/revisions/{THERE}", "DELETE")[0]
    assert [] == list(asked.waiting) and [NAME] == os.listdir(tmp_path)


def test_a_fetch_that_timed_out_a_cycle_is_not_repeated_in_the_next(
    asked: Asked,
) -> None:
    """The consumer gets the reason, and the next cycle fetches the other revisions."""
    for revision in (THERE, AWAY):
        asked.ask(revision, is_known=True)
    (first, *_) = asked.due(Fence())

    with pytest.raises(CycleAbandoned), asked.answering(first):
        raise CycleAbandoned

    assert [AWAY] == list(asked.waiting)
    failure = asked.ask(first, is_known=True)
    assert failure is not None and "cycle_timeout" == failure.reason
