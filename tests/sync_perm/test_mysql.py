"""
Login to MySQL 8 without TLS, as a user whose password the server has not cached.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sync_perm.database.connection import parse_url
from sync_perm.database.database import Database

PLUGIN = b"caching_sha2_password"
NONCE = bytes(range(1, 21))
# From https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html:
# CONNECT_WITH_DB, PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH
CAPABILITIES = 0x8 | 0x200 | 0x8000 | 0x80000
OK = b"\x00\x00\x00\x02\x00\x00\x00"  # autocommit
FULL_AUTHENTICATION = b"\x01\x04"
PUBLIC_KEY_PLEASE = b"\x02"
GREETING = (
    b"\x0a8.0.40\x00"
    + struct.pack("<I", 1)
    + NONCE[:8]
    + b"\x00"
    + struct.pack("<HBHHB", CAPABILITIES & 0xFFFF, 255, 2, CAPABILITIES >> 16, 21)
    + bytes(10)
    + NONCE[8:]
    + b"\x00"
    + PLUGIN
    + b"\x00"
)


class ColdServer:
    """A server that has not cached the user's password, and requests it encrypted with its key."""

    def __init__(self) -> None:
        self.given = b""
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rwb") as stream:

            def send(number: int, payload: bytes) -> None:
                stream.write(struct.pack("<I", len(payload))[:3] + bytes([number]) + payload)
                stream.flush()

            def receive() -> bytes:
                length = int.from_bytes(stream.read(4)[:3], "little")
                return stream.read(length)

            send(0, GREETING)
            receive()
            send(2, FULL_AUTHENTICATION)
            if receive() != PUBLIC_KEY_PLEASE:
                return
            pem = self._key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            send(4, b"\x01" + pem)
            oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
            mixed = self._key.decrypt(receive(), oaep)
            self.given = bytes(a ^ b for a, b in zip(mixed, cycle(NONCE), strict=False))
            send(6, OK)
            with suppress(ConnectionError):  # a client may close before it reads the last answer
                while receive():  # session settings, COM_QUIT, then the end
                    send(1, OK)


@pytest.fixture
def server() -> Iterator[ColdServer]:
    started = ColdServer()
    yield started
    started.close()


def test_sends_the_password_to_a_server_that_has_not_cached_it(server: ColdServer) -> None:
    url = f"mysql://airflow:s3cret@127.0.0.1:{server.port}/airflow"

    Database(parse_url("TEST", url, "")).close()

    assert b"s3cret\0" == server.given
