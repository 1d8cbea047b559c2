"""
The fixtures of the runtime's tests.
"""

from tests.runtime.recording import log

__all__ = ["log"]
