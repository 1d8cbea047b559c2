"""
Fixtures for the tests of the runtime.
"""

from tests.runtime.door import knock
from tests.runtime.recording import clock, fence, log, revoked
from tests.runtime.snapshot_store import shelf

__all__ = ["clock", "fence", "knock", "log", "revoked", "shelf"]
