"""
The fixtures of the runtime's tests.
"""

from tests.runtime.door import knock
from tests.runtime.recording import fence, log
from tests.runtime.snapshot_store import shelf

__all__ = ["fence", "knock", "log", "shelf"]
