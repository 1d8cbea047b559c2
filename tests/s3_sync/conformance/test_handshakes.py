"""
The client with servers that it must not trust: it sends them no request.

For the rotation of the CA bundle, see tests/s3_sync/s3/test_client.py.
"""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest

from tests.s3_sync.conformance.reader import BODY, KEY, Reader
from tests.support.aws.fake_s3 import FakeS3
from tests.support.http.certificates import self_signed

NAME = "s3.example"


@contextmanager
def serving(tls: ssl.SSLContext | None, host: str = "127.0.0.1") -> Iterator[FakeS3]:
    with FakeS3(tls=tls, host=host) as server:
        server.put(KEY, BODY)
        yield server


@contextmanager
def closing_at_once() -> Iterator[int]:
    """Yield a port where each connection is accepted and closed."""
    with ThreadingTCPServer(("127.0.0.1", 0), BaseRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


ROWS = {
    "valid": ((-1, 1), "127.0.0.1", ""),
    "ended yesterday": ((-3, -1), "127.0.0.1", "expired"),
    "valid from tomorrow on": ((1, 3), "127.0.0.1", "not yet valid"),
    "of another name": ((-1, 1), "localhost", "localhost"),
}


@pytest.mark.parametrize("what", ["list", "get"])
@pytest.mark.parametrize("name", ROWS)
def test_accepts_or_refuses_each_certificate_as_specified(
    tmp_path: Path, reader: Reader, name: str, what: str
) -> None:
    days, host, said = ROWS[name]
    context, bundle = self_signed(tmp_path, NAME, days=days)
    with serving(context, host) as server:
        report = reader.read(what, server.endpoint, bundle)

        assert ("tls_failed" if said else "") == report.reason, report
        assert said in report.message
        assert (0 if said else 2) == len(server.requests)


def test_refuses_a_certificate_of_an_unknown_authority(tmp_path: Path, reader: Reader) -> None:
    context, _ = self_signed(tmp_path / "stranger", NAME)
    _, bundle = self_signed(tmp_path / "trusted", "other.example")
    with serving(context) as server:
        report = reader.read("list", server.endpoint, bundle)

        assert "tls_failed" == report.reason, report
        assert [] == server.requests


def test_refuses_a_server_without_tls(tmp_path: Path, reader: Reader) -> None:
    _, bundle = self_signed(tmp_path, NAME)
    with serving(None) as server:
        report = reader.read("list", server.endpoint.replace("http", "https"), bundle)

        assert "tls_failed" == report.reason, report
        assert [] == server.requests


def test_an_interrupted_handshake_is_a_failed_connection(tmp_path: Path, reader: Reader) -> None:
    _, bundle = self_signed(tmp_path, NAME)
    with closing_at_once() as port:
        report = reader.read("list", f"https://127.0.0.1:{port}", bundle)

    assert "endpoint_unreachable" == report.reason, report
