"""
Room on the volume for one commit more.

git-sync never gets over a full volume by itself: what did not fit stays. So room is made before it
runs, and where that was not enough, again: commits that were asked for go, then those that are kept
for their readers, the oldest first, and never the one that is shown.
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
"""Commits that together take less than a tenth of what is lacking share their files, and stay."""


def with_room(
    attempt: Callable[[], T], engine_root: str, volume: Volume, fence: Fence, *, is_new: bool
) -> T:
    """
    Check a commit out and publish it; return what that returns.

    Args:
        attempt: Does so, from the start each time.
        engine_root: git-sync's own root.
        is_new: Whether the remote is known to have a new commit; without one no room is made
            before it is needed.

    Raises:
        SidecarError: It failed; ``target_full`` where there is nothing left to remove.
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
            # git-sync collects garbage by the number of packs, not by their size: that may be all.
            throw_away(engine_root)
            volume.drop_asked(fence)
            if not (is_first or volume.drop_oldest(fence)):
                raise
            is_first = False
