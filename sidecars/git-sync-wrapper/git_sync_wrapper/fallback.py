"""
Find the fallback for a refused commit while nothing is published yet.

A gate stops a change, never a pod: the newest earlier commit that it accepts is published, until it
accepts a newer one. git-sync fetches each candidate by its hash, like a pinned commit. If the
server does not allow that, git-sync fetches all candidates once, with the history of the ref.
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
    There is no fallback; the text, which follows the refused commit's hash, says why.
    """


def fall_back(
    engine: Engine,
    refused: str,
    judge: Callable[[str], RevisionRefused | None],
    fence: Fence,
) -> str:
    """
    Check out and return the newest first-parent ancestor of a commit that the gate accepts.

    Raises:
        NoFallback: There is none.
        SidecarError: A candidate cannot be fetched now; the caller should try again.
        CycleAbandoned: The fence was revoked.
    """
    if engine.is_pinned:
        log.warning("fallback_unusable", revision=refused, reason="pinned")
        raise NoFallback(", which GITSYNC_REF pins")
    commit, is_deep, lacking = refused, False, ""
    for _ in range(COMMITS_BACK):
        commit = engine.parent(commit, fence)
        if not commit:
            raise NoFallback(f" and all commits before it{lacking}")
        try:
            is_deep = check_out(engine, commit, fence, is_deep=is_deep)
        except SidecarError as error:
            if error.reason not in ("ref_not_found", "submodule_missing"):
                raise
            log.warning("fallback_unusable", revision=commit, reason=error.reason)
            if error.reason == "submodule_missing":
                lacking = f", of which {commit} cannot be checked out: {error.message}"
                continue
            raise NoFallback(f", and {commit} cannot be fetched: {error.message}") from None
        if judge(commit) is None:
            log.warning("gate_fallback", name=commit, refused=refused)
            return commit
    raise NoFallback(f" and the {COMMITS_BACK} commits before it{lacking}")


def check_out(
    engine: Engine,
    commit: str,
    fence: Fence,
    *,
    is_deep: bool = False,
    seconds: float | None = None,
) -> bool:
    """
    Check out a commit of the ref's history; return whether the history had to be fetched for it.

    Args:
        is_deep: Whether the history was fetched already.
        seconds: The limit for each run of git-sync; by default, from the settings.

    Raises:
        SidecarError: ``ref_not_found`` if the commit is not in the history; else as the engine.
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
    # Without a depth, git requests nothing from the server that it already has.
    engine.run(fence, ref=commit, depth="0", **limit)
    return True
