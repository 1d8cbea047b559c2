"""
Fixtures for the tests of the loop.
"""

from tests.runtime.loop.looping import spend

__all__ = ["spend"]
