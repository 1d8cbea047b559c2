"""
What consumers see, and in which order it changes: two layouts with the same members,
which belong to the thread of the cycles.

==============  ============================  =========================================
member          in place                      snapshots
==============  ============================  =========================================
``record``      what is published
``shown``       the target                    the snapshot that is linked
``problem``     none                          the link leads elsewhere
``has``         whether its list is there     whether that of a name is shown, with its
                                              list
``is_current``  whether the open folders are still at their paths
``make_way``    nothing                       removes an empty folder in place of the
                                              link; fails if another thing is there
``inspect``     looks at a part of what is shown, for new damage
``correct``     nothing                       sets the link again
``begin``       notes in the record that      makes a folder beside what is shown, or
                files are about to change     goes on with that of an earlier cycle
``reuse``       nothing: they are there       links what is shown already
``make_room``   deletes first                 drops what is retained, the oldest first
``undo``        takes the note back, if no    nothing: the next cycle goes on
                file was replaced
``stand_in``    removes what is damaged       links the former files
``publish``     deletions → record            name → record → link
``tidy``        removes snapshots             prunes; removes files in place
``close``       closes all open folders, and removes what was begun
==============  ============================  =========================================

All raise OSError if the volume fails, and CycleAbandoned if the fence was revoked.
"""

from __future__ import annotations

from typing import TypeAlias

from s3_sync.layout.in_place import InPlaceLayout
from s3_sync.layout.snapshots import SnapshotLayout
from s3_sync.published import Record
from s3_sync.settings import Settings
from s3_sync.volume import Volume

Layout: TypeAlias = InPlaceLayout | SnapshotLayout


def open_layout(settings: Settings, volume: Volume) -> Layout:
    """
    Open what the settings ask for.
    """
    layout = SnapshotLayout if settings.is_snapshot else InPlaceLayout
    return layout(settings, volume, Record(settings, volume.state))
