"""
Requests are counted on their way, and arrive as they were sent.
"""

from http.client import HTTPConnection

from bench.proxy import CountingProxy
from tests.support.fake_s3 import FakeS3


def test_requests_are_counted_by_kind_and_connections_too() -> None:
    with FakeS3() as server, CountingProxy(server.port) as proxy:
        server.put("k", b"0123456789" * 100_000)
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        bodies = []
        for method, query in (("GET", ""), ("HEAD", ""), ("GET", ""), ("GET", "?list-type=2")):
            path = f"/{server.bucket}{query}" if query else f"/{server.bucket}/k"
            connection.request(method, path)
            bodies.append(connection.getresponse().read())
        connection.close()

        counts = proxy.take()

        assert {"GET": 2, "HEAD": 1, "LIST": 1, "connections": 1} == dict(counts)
        assert [1_000_000, 0, 1_000_000] == [len(body) for body in bodies[:3]]
        assert b"ListBucketResult" in bodies[3]
        assert not proxy.take()


def test_request_that_comes_in_pieces_is_counted_once() -> None:
    with FakeS3() as server, CountingProxy(server.port) as proxy:
        server.put("k", b"v")
        connection = HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        connection.connect()
        for piece in (f"GET /{server.bucket}", "/k HTTP/1", ".1\r", "\nHost: x\r\n\r\n"):
            connection.sock.sendall(piece.encode())
        assert b"200" in connection.sock.recv(1000)
        connection.close()

        assert 1 == proxy.take()["GET"]
