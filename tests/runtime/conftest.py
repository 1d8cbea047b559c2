"""
The fixtures of the runtime's tests.
"""

import pytest

from sidecar_runtime.fence import Fence
from tests.runtime.recording import log

__all__ = ["log"]


@pytest.fixture
def fence() -> Fence:
    """
    A fence that nobody has revoked.
    """
    return Fence()
