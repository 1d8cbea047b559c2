"""
The brake on mass deletion: a listing that lacks most files is usually a mistake, so it is held
back long enough for someone to notice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from s3_sync.digest import Content
from s3_sync.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger

# Up to this many deletions are never held back.
HARMLESS_FILES = 20
NAMED_FILES = 20

log = get_logger("cycle")


class DeletionHeld(SidecarError):
    """
    A listing is held back because it would delete too many files.
    """

    def __init__(self, files: int, managed: int, seconds: float) -> None:
        super().__init__(
            "deletion_held",
            f"{files} of {managed} files are missing from the source; this listing is held back "
            f"for {seconds:g} s",
            "If this is a mistake, undo it at the source before a pod is replaced: a new volume "
            "holds nothing back. If it is intended, wait, or send SIGHUP.",
        )
        self.files = files


class DeletionBrake:
    """
    Holds listings back that would delete too many files, and remembers since when.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._percent = settings.max_delete_percent
        self._seconds = settings.max_delete_hold_seconds
        self._is_on = settings.delete != "none" and settings.source_kind == "listing"
        self._clock = clock
        self._since: float | None = None
        # Files that may be deleted now that they were held long enough; further ones are held.
        self._released: set[str] = set()

    def judge(
        self,
        wanted: Mapping[str, Content],
        managed: Mapping[str, Content],
        *,
        is_asked_for: bool,
    ) -> DeletionHeld | None:
        """
        Return why a listing is held back; None if it may be applied.

        Args:
            managed: The published files.
            is_asked_for: Whether an operator triggered this cycle; releases a hold known before.
        """
        gone = vanished(wanted, managed) if self._is_on else []
        self._released.intersection_update(gone)
        if not self._are_most(len(gone) - len(self._released), len(managed)):
            self._since = None
            return None
        is_new = self._since is None
        if self._since is None:
            self._since = self._clock()
            log.warning(
                "deletion_held",
                files_to_delete=len(gone),
                managed_files=len(managed),
                hold_seconds=self._seconds,
                paths=gone[:NAMED_FILES],
            )
        if (is_asked_for and not is_new) or self._clock() - self._since >= self._seconds:
            self._since, self._released = None, set(gone)
            return None
        return DeletionHeld(len(gone), len(managed), self._seconds)

    def awaited(
        self,
        wanted: Mapping[str, Content],
        managed: Mapping[str, Content],
        *,
        is_resumed: bool = False,
    ) -> dict[str, str]:
        """
        Return the new path of each moved file if most files have moved: an old file stays until its
        new one is readable; otherwise the move could become a mass deletion.

        Args:
            managed: The published files.
            is_resumed: Whether a part of the files may have moved already.
        """
        moves = find_moves(wanted, managed) if self._is_on else {}
        if not (is_resumed or self._are_most(len(moves), len(managed))):
            return {}
        return {path: place for path, place in moves.items() if place is not None}

    def _are_most(self, files: int, managed: int) -> bool:
        return files > HARMLESS_FILES and files * 100 > managed * self._percent


def vanished(wanted: Mapping[str, Content], managed: Mapping[str, Content]) -> list[str]:
    """
    Return the managed paths that are gone and have no new path.
    """
    return [path for path, place in find_moves(wanted, managed).items() if place is None]


def find_moves(
    wanted: Mapping[str, Content], managed: Mapping[str, Content]
) -> dict[str, str | None]:
    """
    Return the managed paths that are gone, each with its new path, or None if there is none.

    A moved file has the same ETag. If the ETag is not a digest (SSE-KMS, multipart upload), it
    differs: then a renamed folder is recognized by the same file names and sizes. Each new path
    is assigned to one old path.
    """
    if managed.keys() <= wanted.keys():
        return {}
    moves: dict[str, str | None] = {path: None for path in managed if path not in wanted}
    came = {path: wanted[path] for path in wanted if path not in managed}
    places: dict[object, list[str]] = {}
    for path, entry in came.items():
        places.setdefault((entry.etag, entry.size_bytes), []).append(path)
    for path in moves:
        if found := places.get((managed[path].etag, managed[path].size_bytes)):
            moves[path] = place = found.pop()
            del came[place]
    gone = {path: managed[path] for path, place in moves.items() if place is None}
    before, after = _renamed(gone, came)
    for path, held in gone.items():
        place = after + path.removeprefix(before)
        if path.startswith(before) and place in came and came[place].size_bytes == held.size_bytes:
            moves[path] = place
            del came[place]
    return moves


def _renamed(gone: Mapping[str, Content], came: Mapping[str, Content]) -> tuple[str, str]:
    """
    Return the old and the new name of the renamed folder, according to most of the files whose
    name and size are unique.
    """
    old, new = _rare(gone), _rare(came)
    names = Counter(_folders(old[trait], new[trait]) for trait in old.keys() & new.keys())
    return names.most_common(1)[0][0] if names else ("", "")


def _rare(files: Mapping[str, Content]) -> dict[object, str]:
    traits = {path: (path.rpartition("/")[2], entry.size_bytes) for path, entry in files.items()}
    counts = Counter(traits.values())
    return {trait: path for path, trait in traits.items() if counts[trait] == 1}


def _folders(old: str, new: str) -> tuple[str, str]:
    """
    Return the differing leading folders of two paths, each with a trailing slash.
    """
    a, b = old.split("/"), new.split("/")
    while a and b and a[-1] == b[-1]:
        a.pop()
        b.pop()
    return "/".join([*a, ""]), "/".join([*b, ""])
