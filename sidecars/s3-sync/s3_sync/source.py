"""
What a cycle asks of a source: what should be on disk, and to bring it there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from s3_sync.digest import Content
from s3_sync.plan import Plan
from s3_sync.result import CycleResult
from s3_sync.tree.target import Target
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

C = TypeVar("C", bound=Content)
C_co = TypeVar("C_co", covariant=True)


class State(Protocol[C_co]):
    """
    What the source says should be on disk, at one moment.
    """

    @property
    def revision(self) -> str:
        """
        Its name.
        """

    @property
    def wanted(self) -> Mapping[str, C_co]:
        """
        The files, by path relative to the target.
        """

    @property
    def skipped(self) -> Mapping[str, str]:
        """
        Why a key cannot become a file, by key.
        """

    @property
    def kept(self) -> Collection[str]:
        """
        The paths of what cannot be read, and is not gone either: a file that is there stays.
        """

    def key_of(self, path: str) -> str:
        """
        Return what a wanted file is called in the source.
        """

    @property
    def facts(self) -> Mapping[str, object]:
        """
        What else is known of it, for the status page.
        """


@dataclass(frozen=True, slots=True)
class Order(Generic[C]):
    """
    What a source is to bring up to date.

    Args:
        plan: The part of the state that the target does not have.
        damaged: Managed paths that were changed on disk.
        blocked: Paths where something was in the way the last time.
        begin: Called before the first file is replaced or deleted; more often does no harm.
        awaited: Where what is to be deleted has moved: it stays while its new place lacks.
        result: Takes what is done, also where it ends in an error.
    """

    state: State[C]
    plan: Plan
    target: Target
    fence: Fence
    damaged: Collection[str] = ()
    blocked: Collection[str] = ()
    begin: Callable[[], object] = lambda: None
    awaited: Mapping[str, str] = field(default_factory=dict)
    result: CycleResult = field(default_factory=CycleResult)

    def delete_all(self) -> None:
        """
        Delete what the plan says.

        Raises:
            OSError: The volume fails, not a path on it.
            CycleAbandoned: The fence was revoked.
        """
        for path in self.plan.delete:
            if self.awaited.get(path) in self.result.failed:
                continue
            try:
                if self.target.delete(path, self.fence):
                    self.result.delete(path)
            except OSError as error:
                self.result.fail_on_disk(path, error)


class Source(Protocol[C]):
    """
    Where the truth is; belongs to one thread and its event loop.

    Attributes:
        is_divisible: Whether a part of a state may be published, where the rest cannot be read.
        was_reached: Whether the last look got what a glance is compared with.
    """

    is_divisible: bool

    @property
    def was_reached(self) -> bool: ...

    async def look(self, fence: Fence) -> State[C]:
        """
        Return what should be on disk; the very same object while nothing changes.

        Raises:
            SidecarError: The source cannot be read, or not be trusted.
            CycleAbandoned: The fence was revoked.
        """

    def is_settled(self, state: State[C], published: str, *, is_first: bool) -> bool:
        """
        Whether a state may be acted upon, or is still on its way.

        Args:
            published: The revision that was acted upon last; empty where none was.
            is_first: Nothing was ever published here.
        """

    @property
    def unrest(self) -> SidecarError | None:
        """
        Why states have not settled for a long time; None where that is nothing to worry about.
        """

    async def still_gone(self, paths: Collection[str], fence: Fence) -> Collection[str]:
        """
        Return those of the paths that another look does not find either.
        """

    def suspects(self) -> Collection[str]:
        """
        Return the paths whose content is doubted by now, and is to be brought again.
        """

    async def bring(self, order: Order[C]) -> None:
        """
        Carry out a plan; what cannot be read is noted in the result, by path.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The target fails as a whole.
            CycleAbandoned: The fence was revoked.
        """

    def earlier(self, fence: Fence) -> AsyncIterator[State[C]]:
        """
        Yield the states before the last one, newest first, where they are available.

        Raises:
            SidecarError: The source cannot be read.
        """

    def glance(self) -> bool:
        """
        Whether the state is still the one that was looked at last; False where that is not cheap,
        or cannot be told.
        """

    def close(self) -> None:
        """
        Drop the connections.
        """
