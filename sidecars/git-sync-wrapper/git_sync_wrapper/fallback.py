"""
What an empty volume gets while the gate refuses the newest commit: the newest one before it that the
gate accepts, along first parents.

Only consumers with nothing at all get it. git-sync fetches each candidate by its hash, like a pinned
commit. If the server does not allow that, git-sync fetches all candidates once, with the history of
the ref.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from git_sync_wrapper.engine import Engine
from git_sync_wrapper.logins import Logins
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

COMMITS_BACK = 20

T = TypeVar("T")

log = get_logger("gate")


class NoFallback(Exception):
    """
    There is no fallback; the text, which follows the refused commit's hash, says why.
    """


def fall_back(
    engine: Engine,
    logins: Logins,
    refused: str,
    accept: Callable[[str], T | None],
    fence: Fence,
) -> T:
    """
    Check out ancestors of a commit until one is accepted; return what `accept` returns for it.

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
            is_deep = check_out(engine, logins, commit, fence, is_deep=is_deep)
        except SidecarError as error:
            if error.reason not in ("ref_not_found", "submodule_missing"):
                raise
            log.warning("fallback_unusable", revision=commit, reason=error.reason)
            if error.reason == "submodule_missing":
                lacking = f", of which {commit} cannot be checked out: {error.message}"
                continue
            raise NoFallback(f", and {commit} cannot be fetched: {error.message}") from None
        if (found := accept(commit)) is not None:
            log.warning("gate_fallback", name=commit, refused=refused)
            return found
    raise NoFallback(f" and the {COMMITS_BACK} commits before it{lacking}")


def check_out(
    engine: Engine, logins: Logins, commit: str, fence: Fence, *, is_deep: bool = False
) -> bool:
    """
    Check out a commit of the ref's history; return whether the history had to be fetched for it.

    Args:
        is_deep: Whether the history was fetched already.

    Raises:
        SidecarError: ``ref_not_found`` if the commit is not in the history; else as the engine.
    """
    if not is_deep:
        try:
            engine.run(logins, fence, ref=commit)
        except SidecarError as error:
            if error.reason != "ref_not_found":
                raise
            engine.run(logins, fence, depth=str(COMMITS_BACK + 1))
        else:
            return False
    # Without a depth, git requests nothing from the server that it already has.
    engine.run(logins, fence, ref=commit, depth="0")
    return True
