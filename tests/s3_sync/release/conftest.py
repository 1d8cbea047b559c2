"""Fixtures of the tests of releases."""

import pytest

from tests.support.aws.fake_s3 import FakeS3
from tests.support.s3_sync.shelf import Shelf


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    """An empty shelf on the scripted server."""
    return Shelf(s3)
