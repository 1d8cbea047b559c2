"""
What a cycle asks of a source: what should be on disk, and to bring it there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from s3_sync.plan import C, Plan
from s3_sync.result import CycleResult
from s3_sync.tree.target import Target
from sidecar_runtime.fence import Fence

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
        is_hidden: Whether nobody sees the target before the revision is whole.
        begin: Called before the first file is replaced, where all of them belong together.
        result: Takes what is done, also where it ends in an error.
    """

    state: State[C]
    plan: Plan[C]
    target: Target
    fence: Fence
    damaged: Collection[str] = ()
    blocked: Collection[str] = ()
    is_hidden: bool = False
    begin: Callable[[], object] = lambda: None
    result: CycleResult = field(default_factory=CycleResult)

    def delete_all(self) -> None:
        """
        Delete what the plan says.

        Raises:
            OSError: The volume fails, not a path on it.
            CycleAbandoned: The fence was revoked.
        """
        for path in self.plan.delete:
            try:
                self.result.deleted += self.target.delete(path, self.fence)
            except OSError as error:
                self.result.fail_on_disk(path, error)


class Source(Protocol[C]):
    """
    Where the truth is; belongs to one thread and its event loop.

    Attributes:
        late: Paths to bring after all others, because they failed before.
        was_reached: Whether the last look got what a glance is compared with.
    """

    @property
    def late(self) -> Collection[str]: ...

    @property
    def was_reached(self) -> bool: ...

    async def look(self, fence: Fence) -> State[C]:
        """
        Return what should be on disk; the very same object while nothing changes.

        Raises:
            SidecarError: The source cannot be read, or not be trusted.
            CycleAbandoned: The fence was revoked.
        """

    def is_settled(self, state: State[C], published: str) -> bool:
        """
        Whether a state may be acted upon, or is still on its way.

        Args:
            published: The revision that is published; empty where nothing is.
        """

    async def confirms_deletions(self, state: State[C], fence: Fence) -> bool:
        """
        Whether what the state does not name is really gone.
        """

    async def bring(self, order: Order[C]) -> None:
        """
        Carry out a plan; deletions only when every publish succeeded, or to make room.

        Raises:
            SidecarError: The source fails as a whole.
            OSError: The target fails as a whole.
            CycleAbandoned: The fence was revoked.
        """

    def judge(self, result: CycleResult) -> None:
        """
        Look at what a cycle has done.

        Raises:
            SidecarError: It points at the source itself.
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
