"""Fixtures of the publisher's scenarios."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.publish.site import Site
from tests.support.aws.writable_s3 import WritableS3
from tests.support.s3_sync.forked import ForkServer


@pytest.fixture
def site(tmp_path: Path, forks: ForkServer) -> Iterator[Site]:
    """A bucket without releases on the scripted server, and a publisher."""
    with WritableS3() as s3:
        yield Site(s3, tmp_path, forks)
