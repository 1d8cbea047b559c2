"""
What a cycle has done, and what went wrong with single files.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from s3_sync.tree.volume import VOLUME_ERRORS
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.errors import explain_os_error

# This many in a row, with no success in between, are failures of the endpoint, not of objects.
FAILURE_STREAK = 8
# This many without any success at all: whatever it is, do not ask for each object.
HOPELESS_START = 64
# What the endpoint does to one request; the other reasons of the wire end the cycle at once.
OF_THE_ENDPOINT = {"request_timeout", "connection_lost", "server_error"}


@dataclass(slots=True)
class CycleResult:
    """
    What was done, and what went wrong with single objects.

    Args:
        moved: Keys of objects that changed since they were listed.
        blocked: Paths where a file of another owner is in the way.
        failed: The error by path.
        given_up: Those that have failed so often that nothing waits for them any more.
    """

    published: int = 0
    adopted: int = 0
    deleted: int = 0
    healed: int = 0
    downloaded_bytes: int = 0
    moved: list[str] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    failed: dict[str, SidecarError] = field(default_factory=dict)
    given_up: Collection[str] = ()
    streak: int = 0

    @property
    def is_complete(self) -> bool:
        """
        Whether all that anything waits for is in its place.
        """
        return not self.moved and self.failed.keys() <= set(self.given_up)

    def add(self, other: CycleResult) -> None:
        """
        Add what was done besides.
        """
        self.published += other.published
        self.deleted += other.deleted
        self.healed += other.healed
        self.blocked |= other.blocked
        self.failed |= other.failed

    def take_over(self, other: CycleResult) -> None:
        """
        Add what was got from the source, for others to publish.
        """
        self.downloaded_bytes += other.downloaded_bytes
        self.moved += other.moved
        self.blocked |= other.blocked
        self.failed |= other.failed

    def succeed(self, *, is_published: bool, is_healed: bool) -> None:
        """
        Note that one file is as it should be.
        """
        self.published += is_published
        self.adopted += not is_published
        self.healed += is_healed
        self.streak = 0

    def fail(self, path: str, error: SidecarError) -> None:
        """
        Note the failure of one object.

        Raises:
            SidecarError: It is one too many; the cycle ends.
        """
        self.failed[path] = error
        self.streak += error.reason in OF_THE_ENDPOINT
        is_hopeless = not (self.published or self.adopted) and len(self.failed) >= HOPELESS_START
        if self.streak >= FAILURE_STREAK or is_hopeless:
            raise error

    def fail_on_disk(self, path: str, error: OSError) -> None:
        """
        Note what the file system refuses for one path.

        Raises:
            OSError: The volume fails, not the path; the cycle ends.
        """
        if error.errno in VOLUME_ERRORS:
            raise error
        self.fail(path, explain_os_error(error, f"cannot write {path!r}"))
