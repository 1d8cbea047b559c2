"""
From the tree, which cycles have brought up to date, to what consumers see.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from s3_sync.plan import Plan, make_plan
from s3_sync.target.managed import Managed
from s3_sync.target.target import Target, Torn
from s3_sync.target.walk import Blocked
from s3_sync.work import Work
from sidecar_runtime.fence import Fence


def difference(tree: Target, shown: Target | None, *, may_delete: bool = True) -> Plan[Managed]:
    """
    Return what of the tree is not shown yet.
    """
    return make_plan(
        tree.managed.files,
        shown.managed.files if shown is not None else {},
        damaged=(),
        foreign=(),
        last=(),
        may_delete=may_delete,
    )


def mend(tree: Target, shown: Target, damaged: Collection[str], fence: Fence) -> Work:
    """
    Put back files whose content the tree has.
    """
    ours, theirs = tree.managed.files, shown.managed.files
    same = tuple((path, ours[path]) for path in damaged if _is_same(path, ours, theirs))
    work = bring(tree, shown, Plan(same, ()), fence)
    work.healed, work.published = work.published, 0
    return work


def restore(paths: Collection[str], shown: Target, tree: Target, fence: Fence) -> None:
    """
    Give the tree what is shown, where it is the same or the tree has nothing; no download needed.

    What cannot be linked is left out: it is downloaded.
    """
    ours, theirs = tree.managed.files, shown.managed.files
    for path in list(paths):
        if path in theirs and (path not in ours or _is_same(path, ours, theirs)):
            with suppress(Torn, Blocked, OSError):
                tree.take(path, shown, fence, lambda _: False)


def _is_same(path: str, ours: Mapping[str, Managed], theirs: Mapping[str, Managed]) -> bool:
    return path in ours and path in theirs and ours[path].etag == theirs[path].etag


def bring(tree: Target, shown: Target, plan: Plan[Managed], fence: Fence) -> Work:
    """
    Carry out a plan with files of the tree; deletions only when every publish succeeded.
    """
    work = Work()
    for path, _ in plan.publish:
        try:
            shown.take(path, tree, fence, tree.managed.files.__contains__)
            work.published += 1
        except Blocked:
            work.blocked.add(path)
        except OSError as error:
            work.fail_on_disk(path, error)
    for path in plan.delete if not work.failed else ():
        try:
            work.deleted += shown.delete(path, fence)
        except OSError as error:
            work.fail_on_disk(path, error)
    return work
