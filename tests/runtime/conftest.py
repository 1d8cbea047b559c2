"""
Fixtures for the tests of the runtime.
"""

from tests.runtime.recording import clock, fence, log

__all__ = ["clock", "fence", "log"]
