"""
What /readyz and the status page show: written by the cycle, read by the endpoint.
"""

from __future__ import annotations

from sidecar_runtime.health import Readiness


class Status:
    """
    The facts as of now; each is replaced as a whole, so threads need no lock.
    """

    def __init__(self) -> None:
        self.readiness = Readiness(False, problem="no cycle has finished yet")
        self.details: dict[str, object] = {}

    def show(self, **details: object) -> None:
        """
        Add to the details; empty ones are dropped.
        """
        merged = {**self.details, **details}
        self.details = {key: value for key, value in merged.items() if value not in ({}, [])}
