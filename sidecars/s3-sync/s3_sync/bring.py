"""
From the tree, which cycles have brought up to date, to what consumers see.
"""

from __future__ import annotations

from collections.abc import Collection

from s3_sync.apply import Work
from s3_sync.managed import Managed
from s3_sync.plan import Plan, make_plan
from s3_sync.target import Target
from s3_sync.walk import Blocked
from sidecar_runtime.fence import Fence


def difference(tree: Target, shown: Target | None) -> Plan[Managed]:
    """
    Return what of the tree is not shown yet.
    """
    return make_plan(
        tree.managed.files,
        shown.managed.files if shown is not None else {},
        damaged=(),
        foreign=(),
        last=(),
        may_delete=True,
    )


def mend(
    tree: Target, shown: Target, damaged: Collection[str], takes_all: bool, fence: Fence
) -> Work:
    """
    Put back files whose content the tree has, and remove files of others where that is asked.
    """
    ours, theirs = tree.managed.files, shown.managed.files
    same = tuple(
        (path, ours[path])
        for path in damaged
        if path in ours and path in theirs and ours[path].etag == theirs[path].etag
    )
    work = bring(tree, shown, Plan(same, tuple(shown.foreign() if takes_all else ())), fence)
    work.healed, work.published = work.published, 0
    return work


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
