"""Fixtures of the listing tests."""

import pytest

from s3_sync.tree.target import Target
from sidecar_runtime.fence import Fence
from tests.s3_sync.listing.applying import Cycle
from tests.support.aws.fake_s3 import FakeS3


@pytest.fixture
def cycle(s3: FakeS3, target: Target, fence: Fence) -> Cycle:
    return Cycle(s3, target, fence)
