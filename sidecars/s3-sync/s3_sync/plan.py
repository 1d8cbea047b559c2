"""
Actual state ↔ wanted state → plan. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import NamedTuple

from s3_sync.digest import Content
from s3_sync.tree.journal import Managed


class Plan(NamedTuple):
    """
    One cycle's work, in order: publish, then delete.

    Args:
        publish: Paths of files that are new, changed, or damaged on disk.
        delete: Paths of files whose key was deleted.
    """

    publish: tuple[str, ...]
    delete: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """
        Whether there is nothing to do.
        """
        return not (self.publish or self.delete)


def make_plan(
    wanted: Mapping[str, Content],
    managed: Mapping[str, Managed],
    *,
    kept: Collection[str] = (),
    damaged: Collection[str] = (),
    foreign: Iterable[str] = (),
    last: Collection[str] = (),
    may_delete: bool,
) -> Plan:
    """
    Compare the wanted files with the published files.

    A change is a different ETag or size; times are never compared.

    Args:
        kept: Paths that are not wanted, but whose files stay.
        damaged: Managed paths that were changed or removed on disk.
        foreign: Files that s3-sync does not own, to be deleted (``S3_SYNC_DELETE=all``).
        last: Paths to publish after all others because they failed before.
        may_delete: False under ``S3_SYNC_DELETE=none``.
    """
    publish = []
    for path, entry in wanted.items():
        held = managed.get(path)
        if (
            held is None
            or held.etag != entry.etag
            or held.size_bytes != entry.size_bytes
            or path in damaged
        ):
            publish.append(path)
    publish.sort(key=last.__contains__)
    if not may_delete:
        return Plan(tuple(publish), ())
    # Usually no key was deleted, and one comparison shows that.
    ours = () if managed.keys() <= wanted.keys() else managed
    gone = (path for path in chain(ours, foreign) if path not in wanted and path not in kept)
    return Plan(tuple(publish), tuple(gone))
