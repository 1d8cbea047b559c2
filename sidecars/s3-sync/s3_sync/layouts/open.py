"""
Opens the layout that the settings select.
"""

from __future__ import annotations

from s3_sync.layouts.direct import Direct
from s3_sync.layouts.layout import Layout
from s3_sync.layouts.snapshot import Snapshot
from s3_sync.layouts.staged import StagedLayout
from s3_sync.settings import Settings
from s3_sync.tree.volume import STAGED, TREE, Volume


def open_layout(settings: Settings, volume: Volume, published: str) -> Layout:
    """
    Open the layout that the settings select.

    Args:
        published: The revision that is recorded as published.

    Raises:
        OSError: The volume fails.
    """
    if settings.layout == "snapshot":
        return Snapshot(settings, volume, published)
    if settings.gate != "off":
        return StagedLayout(settings, volume)
    return Direct(settings, volume)


def tree_part(settings: Settings) -> str:
    """
    Return the part of `.s3-sync` that cycles work on; empty for the target folder itself.
    """
    if settings.layout == "snapshot":
        return TREE
    return STAGED if settings.gate != "off" else ""
