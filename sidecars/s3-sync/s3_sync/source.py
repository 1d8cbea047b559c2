"""
The interface of a source: which files should be on disk, and how to download them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
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
    The files that should be on disk according to the source, at one moment.
    """

    @property
    def revision(self) -> str:
        """
        The name of the state.
        """

    @property
    def wanted(self) -> Mapping[str, C_co]:
        """
        The files, by path relative to the target.
        """

    @property
    def skipped(self) -> Mapping[str, str]:
        """
        The reason why a key cannot become a file, by key.
        """

    @property
    def kept(self) -> Collection[str]:
        """
        Paths whose objects exist but cannot be read: their files on disk stay.
        """

    def key_of(self, path: str) -> str:
        """
        Return the key of a wanted file in the source.
        """

    @property
    def facts(self) -> Mapping[str, object]:
        """
        Additional facts for the status page.
        """


@dataclass(frozen=True, slots=True)
class Order(Generic[C]):
    """
    A plan for a source to carry out.

    Args:
        plan: The difference between the state and the target.
        damaged: Managed paths that were changed on disk.
        blocked: Paths that were blocked by another owner's file the last time.
        begin: Called before the first file is replaced or deleted; may be called repeatedly.
        awaited: New paths of moved files, by old path: the old file stays until the new one exists.
        result: Collects what is done, even if the order ends in an error.
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
        Delete the files that the plan names.

        Raises:
            OSError: The volume fails as a whole.
            CycleAbandoned: The fence was revoked.
        """
        for path in self.plan.delete:
            if self.awaited.get(path) in self.result.failed:
                continue
            try:
                if self.target.delete(path, self.fence):
                    self.result.delete(path)
            except OSError as error:
                self.result.fail_to_delete(path, error, self.target)


class Source(Protocol[C]):
    """
    Where the wanted files come from; belongs to one thread and its event loop.

    Attributes:
        is_divisible: Whether a partial state may be published if some files cannot be read.
    """

    is_divisible: bool

    async def look(self, fence: Fence) -> State[C]:
        """
        Return the current state; the same object while nothing changes.

        Raises:
            SidecarError: The source cannot be read or trusted.
            CycleAbandoned: The fence was revoked.
        """

    def is_settled(self, state: State[C], published: str, *, is_first: bool) -> bool:
        """
        Whether a state may be acted upon; False while it is still being written.

        Args:
            published: The revision that was acted upon last; empty if there was none.
            is_first: Whether nothing was published here before.
        """

    @property
    def unrest(self) -> SidecarError | None:
        """
        The reason why states have not settled for a long time; None while that is normal.
        """

    async def still_gone(self, paths: Collection[str], fence: Fence) -> Collection[str]:
        """
        Return the paths that a second look does not find either.
        """

    def suspects(self, tree: Target) -> Collection[str]:
        """
        Return the paths of a tree whose content is in doubt and must be downloaded again.
        """

    async def bring(self, order: Order[C]) -> None:
        """
        Carry out a plan; the result notes files that cannot be read, by path.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The target fails as a whole.
            CycleAbandoned: The fence was revoked.
        """

    def earlier(self) -> Mapping[str, Callable[[], Awaitable[State[C]]]]:
        """
        Return a reader of each state before the last one, by revision, newest first.

        Raises:
            SidecarError: None of them can be read.
        """

    def close(self) -> None:
        """
        Drop the connections.
        """
