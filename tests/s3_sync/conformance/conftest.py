"""Fixtures of the conformance tests: the reader, and a server with one object."""

from collections.abc import Iterator

import pytest

from tests.s3_sync.conformance.reader import BODY, KEY, Reader, reading
from tests.support.aws.fake_s3 import FakeS3


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A process that sends the requests."""
    with reading() as one:
        yield one


@pytest.fixture(scope="module")
def _server() -> Iterator[FakeS3]:
    with FakeS3() as server:
        server.put(KEY, BODY)
        yield server


@pytest.fixture
def s3(_server: FakeS3) -> Iterator[FakeS3]:
    """A server without faults."""
    yield _server
    _server.heal()
    _server.forget()
