"""Fixtures for the tests of connections."""

import ssl
from pathlib import Path

import pytest

from tests.support.http.certificates import self_signed


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), "bucket.example")
