"""
Fixtures for the tests of the runtime.
"""

from tests.runtime.recording import clock, fence, handlers_restored, log

__all__ = ["clock", "fence", "handlers_restored", "log"]
