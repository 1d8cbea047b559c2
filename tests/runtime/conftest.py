"""
Fixtures for the tests of the runtime.
"""

from tests.runtime.gate.door import knock
from tests.runtime.recording import clock, fence, log, revoked
from tests.runtime.volume.snapshot_store import shelf

__all__ = ["clock", "fence", "knock", "log", "revoked", "shelf"]
