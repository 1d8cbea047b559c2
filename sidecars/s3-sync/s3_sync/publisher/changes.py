"""
The differences between two contents. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from s3_sync.digest import EXECUTABLE
from s3_sync.publisher.local.folder import Look
from s3_sync.release.facts import Checked
from s3_sync.release.manifest import Manifest

NAMED = 20


@dataclass(frozen=True, slots=True)
class ReleaseChanges:
    """
    Sorted paths, by kind of change.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def facts(self) -> dict[str, tuple[str, ...]]:
        return asdict(self)

    def lines(self, limit: int = 0) -> list[str]:
        """
        Return one line per path, at most `limit` of them; 0: all.
        """
        marks = (("+", self.added), ("~", self.changed), ("-", self.removed))
        lines = [f"  {mark} {path}" for mark, paths in marks for path in paths]
        if limit and len(lines) > limit:
            return [*lines[:limit], f"  and {len(lines) - limit} more"]
        return lines

    def __str__(self) -> str:
        counts = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        return ", ".join(f"{len(paths)} {name}" for name, paths in counts)


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> ReleaseChanges:
    """
    Compare two contents: a fingerprint for each path.
    """
    return ReleaseChanges(
        tuple(sorted(after.keys() - before.keys())),
        tuple(path for path in sorted(after) if path in before and before[path] != after[path]),
        tuple(sorted(before.keys() - after.keys())),
    )


def compare_dags(before: Checked | None, after: Checked | None) -> ReleaseChanges | None:
    """
    Compare the DAG ids; None unless those of both releases are known.
    """
    if before is None or after is None or not (before.knows_dags and after.knows_dags):
        return None
    return compare(dict.fromkeys(before.dag_ids, ""), dict.fromkeys(after.dag_ids, ""))


def content_of(manifest: Manifest | None) -> dict[str, str]:
    """
    Return a fingerprint for each path of a release; empty without a manifest.
    """
    return {path: file.etag for path, file in manifest.files.items()} if manifest else {}


def content_of_folder(seen: Look, digests: Mapping[str, str]) -> dict[str, str]:
    return {
        file.path: f"{digests[file.path]}{EXECUTABLE if file.is_executable else ''}"
        for file in seen.files
    }
