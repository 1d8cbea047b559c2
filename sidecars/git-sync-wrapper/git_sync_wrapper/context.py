"""
The dependencies of a cycle, and the state that outlives a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from git_sync_wrapper.engine.engine import Engine
from git_sync_wrapper.error_file import ErrorFile
from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.hooks.runners import Hooks
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.poll.polls import Poller
from git_sync_wrapper.published.record import Published
from git_sync_wrapper.settings import Settings
from git_sync_wrapper.status import Status
from sidecar_runtime.asking.asked import Asked
from sidecar_runtime.errors import GaveUp
from sidecar_runtime.gate.gate import Gate
from sidecar_runtime.volume.lock import TargetLock


class GitSyncExitError(GaveUp):
    """
    The process exits when git-sync would, with git-sync's exit code: after too many failures before
    the first publication, or after a failed hook of a one-shot.
    """

    exit_code = 1


@dataclass(slots=True)
class Past:
    """
    State that outlives a session.

    Args:
        failures: Consecutive failures, as git-sync counts them.
        has_synced: Whether a cycle of this process has found the newest commit published.
    """

    lock: TargetLock
    failures: int = 0
    has_synced: bool = False


class Context(NamedTuple):
    """
    The dependencies of a session.

    Args:
        asked: The requests of consumers; None if they may not request commits.
    """

    settings: Settings
    options: Options
    environ: Mapping[str, str]
    engine: Engine
    poller: Poller
    gate: Gate | None
    hooks: Hooks
    metrics: WrapperMetrics
    status: Status
    report: ErrorFile
    past: Past
    asked: Asked | None = None

    def note(self, published: Published, *, is_holder: bool = True) -> None:
        """
        Note what the link shows; only the lock holder (`is_holder`) can change that.
        """
        self.status.publish(published, is_holder=is_holder)
        self.metrics.gate.fallback.set(bool(published.fallback))
        self.metrics.last_publish.set(published.published_at or 0)
