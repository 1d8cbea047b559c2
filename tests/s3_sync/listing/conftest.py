"""Fixtures of the listing tests."""

import pytest

from s3_sync.folder.folder import Folder
from sidecar_runtime.fence import Fence
from tests.s3_sync.listing.fetching import Fetching
from tests.support.aws.fake_s3 import FakeS3


@pytest.fixture
def fetching(s3: FakeS3, target: Folder, fence: Fence) -> Fetching:
    return Fetching(s3, target, fence)
