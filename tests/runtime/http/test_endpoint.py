"""
The HTTP server of a sidecar, on loopback.
"""

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from selectors import DefaultSelector
from typing import Any, TypeVar

import pytest

from sidecar_runtime.errors import SettingsError
from sidecar_runtime.health import Health, LastError, PastCycle, Readiness
from sidecar_runtime.http import listener as http_listener
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.http.listener import (
    CONNECTIONS,
    RETRY_SECONDS,
    Answer,
    Listener,
    listen,
)
from sidecar_runtime.http.page import CONTENT_SECURITY_POLICY
from sidecar_runtime.http.status import About
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import Log, Script
from tests.support.machine.clocks import Clock
from tests.support.raising import raised
from tests.support.waiting import PATIENCE_SECONDS, wait_until

Start = Callable[..., Endpoint]
Served = TypeVar("Served", bound=Listener)


class Sidecar(Script):
    """A sidecar whose readiness the test sets."""

    is_ready = True

    def readiness(self) -> Readiness:
        return Readiness(self.is_ready, "r1", 5.0, "" if self.is_ready else "missing files")


@contextlib.contextmanager
def serving(listener: Served) -> Iterator[Served]:
    """Serve in a thread until the end of the block."""
    listener.start()
    yield listener
    listener.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts an endpoint on a free port; all endpoints end with the test."""
    with contextlib.ExitStack() as stack:

        def begin(bind: tuple[str, int] = ("127.0.0.1", 0), show_status: bool = True) -> Endpoint:
            endpoint = Endpoint(
                bind,
                "BOX_HTTP_BIND",
                about=About("box-sync", "1.2.3", "box://source", "/target"),
                health=Health(Clock()),
                sidecar=Sidecar(),
                metrics=Metrics("box-sync", "1.2.3", "abc"),
                show_status=show_status,
            )
            return stack.enter_context(serving(endpoint))

        yield begin


@pytest.fixture
def endpoint(start: Start, log: Log) -> Endpoint:
    return start()


def ask(endpoint: Listener, path: str, method: str = "GET", **more: Any) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    connection.request(method, path, **more)
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


def body_of(response: HTTPResponse) -> bytes:
    return response.body  # type: ignore[attr-defined, no-any-return]


def connect(endpoint: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", endpoint.port), timeout=10)


# --- answers


def test_liveness_depends_only_on_the_heartbeat(endpoint: Endpoint) -> None:
    endpoint.health.expect_beat(30)
    endpoint.health.record(PastCycle(0, 0, "error", "x", {}), LastError("x", "y", "", 0))
    endpoint.sidecar.is_ready = False  # type: ignore[attr-defined]
    answer = ask(endpoint, "/healthz")
    assert 200 == answer.status
    assert {"alive": True, "heartbeat_age_seconds": 0.0} == json.loads(body_of(answer))

    endpoint.health._clock.seconds += 31.0  # type: ignore[attr-defined]
    answer = ask(endpoint, "/healthz")
    assert 503 == answer.status
    assert {"alive": False, "heartbeat_age_seconds": 31.0} == json.loads(body_of(answer))


def test_readyz_returns_the_readiness_of_the_sidecar(endpoint: Endpoint) -> None:
    answer = ask(endpoint, "/readyz")
    assert answer.status == 200
    assert ("r1", True) == tuple(json.loads(body_of(answer))[key] for key in ("revision", "ready"))

    endpoint.sidecar.is_ready = False  # type: ignore[attr-defined]
    answer = ask(endpoint, "/readyz")
    assert answer.status == 503
    assert json.loads(body_of(answer))["error"] == "missing files"


def test_metrics_are_in_prometheus_format(endpoint: Endpoint) -> None:
    answer = ask(endpoint, "/metrics")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert b'sidecar_build_info{revision="abc",sidecar="box-sync",version="1.2.3"} 1.0' in (
        body_of(answer)
    )
    for name in (b"process_resident_memory_bytes", b"process_open_fds", b"sidecar_ready"):
        assert b"\n# TYPE %s gauge\n%s" % (name, name) in body_of(answer)


def test_the_status_is_available_as_html_and_as_json(endpoint: Endpoint) -> None:
    people, machines = ask(endpoint, "/"), ask(endpoint, "/status")

    assert (200, "text/html; charset=utf-8") == (people.status, people.headers["Content-Type"])
    assert (200, "application/json") == (machines.status, machines.headers["Content-Type"])
    assert json.loads(body_of(machines))["sidecar"] == "box-sync"


def test_the_status_page_can_be_disabled(start: Start, log: Log) -> None:
    endpoint = start(show_status=False)

    assert [404, 404] == [ask(endpoint, path).status for path in ("/", "/status")]
    assert [200, 200] == [ask(endpoint, path).status for path in ("/healthz", "/readyz")]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/status", "/nothing"])
def test_head_is_get_without_the_body(endpoint: Endpoint, path: str) -> None:
    get, head = ask(endpoint, path), ask(endpoint, path, "HEAD")

    assert get.status == head.status
    assert get.headers["Content-Type"] == head.headers["Content-Type"]
    assert int(get.headers["Content-Length"]) == len(body_of(get)) > 0
    assert body_of(head) == b""


def test_a_response_to_head_has_no_body_on_the_wire(endpoint: Endpoint) -> None:
    with connect(endpoint) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, body = read_all(client).split(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 404) for path in ("/health", "/healthz/", "/status/x", "/../healthz", "*")),
        ("GET", "/healthz?verbose=1", 200),
    ],
)
def test_refuses_unknown_paths_and_methods_and_ignores_the_query(
    endpoint: Endpoint, method: str, path: str, status: int
) -> None:
    assert ask(endpoint, path, method).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get"])
def test_refuses_other_methods(endpoint: Endpoint, method: str) -> None:
    for path in ("/", "/healthz", "/sync"):
        assert ask(endpoint, path, method, body=b"x" * 1_000).status == 405


def test_the_body_of_a_request_is_not_parsed_as_a_request(endpoint: Endpoint) -> None:
    inner = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for method in (b"GET", b"POST"):
        with connect(endpoint) as client:
            client.sendall(
                b"%s /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                % (method, len(inner), inner)
            )
            answers = read_all(client)

        assert answers.count(b"HTTP/1.1") == 1
        assert answers.startswith(b"HTTP/1.1 405" if method == b"POST" else b"HTTP/1.1 200")


def test_every_response_has_the_security_headers(endpoint: Endpoint) -> None:
    for path in ("/", "/status", "/readyz", "/nothing"):
        headers = ask(endpoint, path).headers
        assert headers["Server"].strip() == "sidecar", "not what it is made of"

        assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_requests_are_logged_at_debug_only(endpoint: Endpoint, log: Log) -> None:
    ask(endpoint, "/healthz")

    wait_until(lambda: log.events("http_request"), "the request is logged")
    assert {"debug"} == {event["level"] for event in log.events("http_request")}


def test_text_that_is_not_unicode_is_escaped_in_every_answer(endpoint: Endpoint, log: Log) -> None:
    """File names that are not UTF-8 have lone surrogates, which strict readers of JSON refuse."""
    name = "caf\udce9"
    error = LastError("refused", name, name, 0)
    endpoint.health.record(PastCycle(0, 0, "error", "refused", {name: name}), error)
    endpoint.metrics.failures(name).inc()

    for path in ("/readyz", "/status", "/", "/metrics"):
        text = body_of(ask(endpoint, path)).decode()
        if path in ("/readyz", "/status"):
            text = json.dumps(json.loads(text), ensure_ascii=False).replace("\\\\", "\\")
        assert text.encode()
        assert r"caf\udce9" in text.replace("\\\\", "\\"), path


# --- binding


def test_logs_the_address_on_which_it_listens(endpoint: Endpoint, log: Log) -> None:
    assert [f"127.0.0.1:{endpoint.port}"] == [
        event["address"] for event in log.events("http_listening")
    ]


def test_listens_on_ipv6_loopback(start: Start, log: Log) -> None:
    endpoint = start(("::1", 0))

    assert log.events("http_listening")[0]["address"] == f"[::1]:{endpoint.port}"
    with socket.create_connection(("::1", endpoint.port), timeout=10):
        pass
    with pytest.raises(OSError, match="refused"):
        connect(endpoint)


def test_a_port_in_use_is_a_settings_error(endpoint: Endpoint, start: Start) -> None:
    problem = raised(SettingsError, start, ("127.0.0.1", endpoint.port)).problems[0]
    assert "BOX_HTTP_BIND" == problem.setting
    assert f"127.0.0.1:{endpoint.port}" == problem.value
    assert problem.problem == (
        "cannot listen there: Address already in use (another container of this pod?): "
        "set another port, or 0 for any free one"
    )


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "no-such-host.invalid", "a..b", "x" * 70 + ".invalid", "white space"]
)
def test_an_address_that_cannot_be_bound_is_a_settings_error(start: Start, host: str) -> None:
    error = raised(SettingsError, start, (host, 0))

    assert error.problems[0].problem.startswith("cannot listen there: ")


EVERYWHERE = """
import fcntl, socket, struct, sys
from http import HTTPStatus
from http.client import HTTPConnection
sys.path.insert(0, {root!r})
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.health import Health
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.http.status import About
from tests.runtime.recording import Script

up = struct.pack("16sh", b"lo", 1)          # IFF_UP: a new network has its loopback down
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, up)           # SIOCSIFFLAGS
about = About("box", "1", "source", "target")
endpoint = Endpoint(("", 0), "BIND", about=about, health=Health(), sidecar=Script(),
                    metrics=Metrics("box", "1", "r"), show_status=True)
endpoint.start()
for host in ("127.0.0.1", "::1"):
    connection = HTTPConnection(host, endpoint.port, timeout=10)
    connection.request("GET", "/healthz")
    print(host, connection.getresponse().status)
"""


def test_an_empty_host_listens_on_ipv4_and_ipv6() -> None:
    """Runs in its own network namespace, to listen on no other address than loopback."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("a network namespace needs a kernel or container that lets us")
    program = EVERYWHERE.format(root=str(Path(__file__).parents[3]))

    out = subprocess.run(
        [*alone, sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert "127.0.0.1 200" in out.stdout, out.stderr
    assert "::1 200" in out.stdout


# --- clients that behave badly


def read_all(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while received := client.recv(65536):
            data += received
    return data


class Given:
    """Answers with a body that the test sets, or fails."""

    body = b"{}"

    def answer(self, path: str) -> Answer:
        """Return the answer."""
        if path == "/bug":
            raise ValueError("a bug")
        return Answer(HTTPStatus.OK, self.body)


@pytest.fixture
def given() -> Given:
    return Given()


@pytest.fixture
def listener(given: Given, log: Log) -> Iterator[Listener]:
    """A listener whose answers the test controls."""
    with serving(Listener(listen(("127.0.0.1", 0), "HTTP_BIND"), given.answer)) as listener:
        yield listener


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHo"])
def test_disconnects_a_client_that_sends_no_complete_request(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 0.05)
    with connect(listener) as client:
        client.sendall(said)
        assert read_all(client) == b""


def test_a_client_that_sends_byte_by_byte_has_no_more_time_than_others(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "CLIENT_SECONDS", 0.1)
    with connect(listener) as client, contextlib.suppress(OSError):
        for _ in range(int(PATIENCE_SECONDS / 0.02)):
            client.sendall(b"G")
            time.sleep(0.02)
        raise AssertionError("it was not disconnected")


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(20_000)) + b"\r\n",
    ],
    ids=["blank", "tls", "no-path", "0.9", "version", "http2", "long-line", "many-headers"],
)
def test_survives_malformed_requests(endpoint: Endpoint, data: bytes) -> None:
    with connect(endpoint) as client:
        with contextlib.suppress(OSError):  # the server may have closed the connection
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        assert b" 200 " not in read_all(client)

    assert ask(endpoint, "/healthz").status == 200


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\nA: b\n\r\n"])
@pytest.mark.parametrize("path", [b"/healthz", b"/readyz"])
def test_answers_a_client_that_sends_in_parts_and_half_closes(
    endpoint: Endpoint, path: bytes, end: bytes
) -> None:
    with connect(endpoint) as client:
        for part in (b"\r\nGET " + path, b" HTTP/1.0", end):
            client.sendall(part)
            time.sleep(0.01)
        client.shutdown(socket.SHUT_WR)

        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_closes_each_connection_after_one_answer(endpoint: Endpoint) -> None:
    """Prometheus and browsers ask for more on one connection; then they open another one."""
    for path in ("/healthz", "/metrics"):
        with connect(endpoint) as client:
            client.sendall(get(path, "Connection: keep-alive\r\n") * 3)

            answers = read_all(client)

        assert 1 == answers.count(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answers


def test_silent_clients_neither_block_probes_nor_exceed_the_connection_limit(
    listener: Listener,
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(listener)) for _ in range(CONNECTIONS * 2)]
        for _ in range(5):
            assert ask(listener, "/").status == 200
        assert len(listener._clients) <= CONNECTIONS
        # The oldest connection was closed.
        assert read_all(clients[0]) == b""
        stack.close()
        wait_until(lambda: not listener._clients, "all are gone")


def test_a_client_that_does_not_read_delays_no_other_client(
    listener: Listener, given: Given
) -> None:
    given.body = b"x" * 10_000_000
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(listener)).sendall(get("/"))
        given.body = b"x" * 200_000

        assert given.body == body_of(ask(listener, "/"))


def test_a_bug_in_an_answer_is_logged_and_ends_nothing(listener: Listener, log: Log) -> None:
    assert [500, 200] == [ask(listener, path).status for path in ("/bug", "/")]
    (event,) = log.events("http_answer_failed")
    assert ("error", "/bug") == (event["level"], event["path"])
    assert "ValueError: a bug" in event["exception"]


def test_requests_start_no_threads(endpoint: Endpoint) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for path in ("/healthz", "/readyz") * 5:
            stack.enter_context(connect(endpoint)).sendall(get(path))
        assert ask(endpoint, "/readyz").status == 200
        assert before == threading.active_count()


def test_close_ends_the_thread_and_frees_the_port(endpoint: Endpoint, start: Start) -> None:
    threads = {thread for thread in threading.enumerate() if thread.name == "http"}
    with connect(endpoint) as client:
        endpoint.close()
        endpoint.close()

        wait_until(lambda: not any(thread.is_alive() for thread in threads), "they have ended")
        assert read_all(client) == b""


def test_waits_and_retries_when_no_file_descriptor_is_free(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (pauses.append(seconds), sleep(seconds)))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        try:
            os.close(lowest := os.dup(client.fileno()))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
            client.connect(("127.0.0.1", listener.port))
            wait_until(lambda: pauses.count(RETRY_SECONDS) > 2, "it has tried again")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client.sendall(get("/"))

        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_an_idle_listener_sleeps_until_a_client_comes(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []

    class Selector(DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().select(timeout)

    monkeypatch.setattr(http_listener, "DefaultSelector", Selector)
    bound = listen(("127.0.0.1", 0), "HTTP_BIND")
    with serving(Listener(bound, given.answer)) as listener:
        assert ask(listener, "/").status == 200
        wait_until(lambda: len(waits) > 2, "it is idle again")

        assert [None, None] == [waits[0], waits[-1]]
        assert all(0 < wait <= 5.0 for wait in waits[1:-1] if wait is not None)
