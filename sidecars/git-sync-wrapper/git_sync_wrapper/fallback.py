"""
What is published instead of a refused commit, where nothing is published yet.

A gate stops a change, never a pod: the newest of the commits before that it accepts is shown, until
a better one comes. git-sync fetches each of them by its hash, as it would a pinned one; from a
server that gives none by its hash, it fetches them all once, with the ref.
"""

from __future__ import annotations

from collections.abc import Callable

from git_sync_wrapper.engine.engine import Engine
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.logs import get_logger

COMMITS_BACK = 20

log = get_logger("gate")


class NoFallback(Exception):
    """
    There is nothing to be published instead; the text says why, after the refused commit.
    """


def fall_back(
    engine: Engine,
    refused: str,
    judge: Callable[[str], RevisionRefused | None],
    fence: Fence,
) -> str:
    """
    Check out the newest first parent of a commit that the gate accepts; return it.

    Raises:
        NoFallback: There is none.
        SidecarError: One could not be fetched now; it is worth another try.
        CycleAbandoned: The fence was revoked.
    """
    if engine.is_pinned:
        log.warning("fallback_unusable", revision=refused, reason="pinned")
        raise NoFallback(", which GITSYNC_REF pins")
    commit, is_deep = refused, False
    for _ in range(COMMITS_BACK):
        commit = engine.parent(commit, fence)
        if not commit:
            raise NoFallback(", and all before it")
        try:
            is_deep = check_out(engine, commit, fence, is_deep=is_deep)
        except SidecarError as error:
            if error.reason != "ref_not_found":
                raise
            log.warning("fallback_unusable", revision=commit, reason=error.reason)
            raise NoFallback(f", and the one before cannot be fetched: {error.message}") from None
        if judge(commit) is None:
            log.warning("gate_fallback", name=commit, refused=refused)
            return commit
    raise NoFallback(f", and the {COMMITS_BACK} before it")


def check_out(
    engine: Engine,
    commit: str,
    fence: Fence,
    *,
    is_deep: bool = False,
    seconds: float | None = None,
) -> bool:
    """
    Check out a commit of the ref's history; return whether that had to be fetched, now or before.

    Args:
        seconds: What each run of git-sync may take; by default, as the settings say.

    Raises:
        SidecarError: ``ref_not_found`` where it is not in the history either; else as the engine.
    """
    limit = {} if seconds is None else {"sync-timeout": f"{seconds:.3f}s"}
    if not is_deep:
        try:
            engine.run(fence, ref=commit, **limit)
        except SidecarError as error:
            if error.reason != "ref_not_found":
                raise
            engine.run(fence, depth=str(COMMITS_BACK + 1), **limit)
        else:
            return False
    # Without a depth git asks the server for nothing that it has already.
    engine.run(fence, ref=commit, depth="0", **limit)
    return True
