"""
Moves files between the tree, which cycles bring up to date, and the published files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from s3_sync.plan import Plan, make_plan
from s3_sync.result import CycleResult
from s3_sync.tree.journal import Managed
from s3_sync.tree.target import Target, Torn
from s3_sync.tree.walk import Blocked
from sidecar_runtime.fence import Fence


def difference(tree: Target, shown: Target | None, *, may_delete: bool = True) -> Plan:
    """
    Return the changes of the tree that are not published yet.
    """
    if shown is None:
        return make_plan(tree.managed.files, {}, may_delete=may_delete)
    return make_plan(
        tree.managed.files,
        shown.managed.files,
        damaged=corrected(tree, shown),
        may_delete=may_delete,
    )


def corrected(tree: Target, shown: Target) -> set[str]:
    """
    Return the published files whose bytes turned out to be wrong: the tree has downloaded the same
    version again, and verified it.
    """
    ours, theirs = tree.managed.files, shown.managed.files
    suspects = shown.managed.unverified - tree.managed.unverified
    return {path for path in suspects if _is_same(path, ours, theirs)}


def repair(tree: Target, shown: Target, damaged: Collection[str], fence: Fence) -> CycleResult:
    """
    Restore published files whose content the tree has.
    """
    ours, theirs = tree.managed.files, shown.managed.files
    same = tuple(path for path in damaged if _is_same(path, ours, theirs))
    result = bring(tree, shown, Plan(same, ()), fence)
    return CycleResult(healed=result.published, blocked=result.blocked, failed=result.failed)


def restore(paths: Collection[str], shown: Target, tree: Target, fence: Fence) -> None:
    """
    Link published files into the tree if the tree lacks them or lists the same content.

    Files that cannot be linked are skipped: they are downloaded.
    """
    ours, theirs = tree.managed.files, shown.managed.files
    for path in list(paths):
        if path in theirs and (path not in ours or _is_same(path, ours, theirs)):
            with suppress(Torn, Blocked, OSError):
                tree.take(path, shown, fence, lambda _: False)


def revert(
    paths: Collection[str],
    torn: Collection[str],
    shown: Target | None,
    tree: Target,
    fence: Fence,
) -> None:
    """
    Reset these paths of the tree to the published files; delete files that are not published, or
    whose published file is damaged as well.

    They could not be read now, and the tree may have versions from an earlier cycle that do not
    belong to its other files.

    Args:
        torn: The damaged files of the tree.
    """
    ours, theirs = tree.managed.files, shown.managed.files if shown is not None else {}
    for path in paths:
        if shown is None or path not in theirs:
            if path in ours:
                tree.delete(path, fence)
        elif path in torn or not _is_same(path, ours, theirs):
            try:
                tree.take(path, shown, fence, lambda _: False)
            except Torn:
                tree.delete(path, fence)


def take_back(shown: Target | None, tree: Target, fence: Fence) -> None:
    """
    Reset the whole tree to the published files; files that cannot be linked stay missing.
    """
    if shown is None:
        return
    ours, theirs = tree.managed.files, shown.managed.files
    for path in [path for path in ours if not _is_same(path, ours, theirs)]:
        tree.delete(path, fence)
    restore(theirs.keys() - ours.keys(), shown, tree, fence)


def _is_same(path: str, ours: Mapping[str, Managed], theirs: Mapping[str, Managed]) -> bool:
    return path in ours and path in theirs and ours[path].etag == theirs[path].etag


def bring(tree: Target, shown: Target, plan: Plan, fence: Fence) -> CycleResult:
    """
    Carry out a plan with files of the tree; delete only if every publish succeeded.
    """
    result = CycleResult()
    for path in plan.publish:
        is_new = path not in shown.managed.files
        try:
            shown.take(path, tree, fence, tree.managed.files.__contains__)
            result.succeed(path, is_published=True, is_healed=False, is_new=is_new)
        except Blocked:
            result.blocked.add(path)
        except OSError as error:
            result.fail_on_disk(path, error)
    for path in plan.delete if not result.failed else ():
        try:
            if shown.delete(path, fence):
                result.delete(path)
        except OSError as error:
            result.fail_to_delete(path, error, shown)
    return result
