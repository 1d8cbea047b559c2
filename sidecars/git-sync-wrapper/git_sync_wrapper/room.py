"""
Make room on the volume for another commit.

git-sync does not recover from a full volume: an incomplete checkout stays. So room is made before
it runs, and again if that was not enough. Requested commits are removed first, then replaced
commits, the oldest first; the published commit is never removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from git_sync_wrapper.engine.heal import remove_stale, throw_away
from git_sync_wrapper.published.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

T = TypeVar("T")

WORTH = 10
"""Older commits that together free less than a tenth of the missing room are kept."""


def with_room(
    attempt: Callable[[], T], engine_root: str, volume: Volume, fence: Fence, *, is_new: bool
) -> T:
    """
    Check out and publish a commit, with enough room; return the result of `attempt`.

    Args:
        attempt: Checks out and publishes, from the start each time.
        engine_root: git-sync's own root.
        is_new: Whether the remote is known to have a new commit. If not, room is made only once
            the volume is full.

    Raises:
        SidecarError: It failed; ``target_full`` if there is nothing left to remove.
        CycleAbandoned: The fence was revoked.
    """
    if is_new and volume.lacking_bytes() > 0:
        remove_stale(engine_root)
        volume.drop_asked(fence)
        while 0 < volume.lacking_bytes() < WORTH * volume.older_bytes():
            if not volume.drop_oldest(fence):
                break
    is_first = True
    while True:
        try:
            return attempt()
        except SidecarError as error:
            if error.reason != "target_full":
                raise
            # git-sync collects garbage by number of packs, not by size: that alone may free enough.
            throw_away(engine_root)
            volume.drop_asked(fence)
            if not (is_first or volume.drop_oldest(fence)):
                raise
            is_first = False
