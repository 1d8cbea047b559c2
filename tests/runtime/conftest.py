"""
The fixtures of the runtime's tests.
"""

import pytest

from sidecar_runtime.fence import Fence
from tests.runtime.door import knock
from tests.runtime.looping import quick
from tests.runtime.recording import log
from tests.runtime.snapshot_store import shelf

__all__ = ["knock", "log", "quick", "shelf"]


@pytest.fixture
def fence() -> Fence:
    """
    A fence that nobody has revoked.
    """
    return Fence()
