"""
The result of a cycle: what it did, and which files failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from s3_sync.tree.target import Target
from s3_sync.tree.volume import VOLUME_ERRORS
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.volume.errors import explain_os_error

# After this many failures in a row, without a success, the endpoint fails, not single objects.
FAILURE_STREAK = 8
# Endpoint failures that may hit a single request; other connection failures end the cycle at once.
OF_THE_ENDPOINT = {
    "request_timeout",
    "connection_lost",
    "server_error",
    "throttled",
    "redirect_refused",
    "credentials_invalid",
}


@dataclass(slots=True)
class Changes:
    """
    Changes that consumers see, by path; restoring a damaged file is not a change.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.deleted)

    def __iadd__(self, other: Changes) -> Changes:
        self.added += other.added
        self.changed += other.changed
        self.deleted += other.deleted
        return self

    def after(self, earlier: Changes) -> Changes:
        """
        Return the combination of earlier changes and these.
        """
        both = {
            ("added", "changed"): "added",
            ("added", "deleted"): "",
            ("deleted", "added"): "changed",
        }
        kinds = dict(earlier._kinds())
        for path, kind in self._kinds():
            kinds[path] = both.get((kinds.get(path, ""), kind), kind)
        found = Changes()
        for path, kind in kinds.items():
            if kind:
                getattr(found, kind).append(path)
        return found

    def _kinds(self) -> Iterator[tuple[str, str]]:
        for kind in ("added", "changed", "deleted"):
            for path in getattr(self, kind):
                yield path, kind

    def counts(self) -> dict[str, int]:
        """
        Return the number of changes of each kind.
        """
        return {
            "added": len(self.added),
            "changed": len(self.changed),
            "deleted": len(self.deleted),
        }

    def note(self, path: str, *, is_new: bool) -> None:
        """
        Note a file that was added or changed.
        """
        (self.added if is_new else self.changed).append(path)


@dataclass(slots=True)
class CycleResult:
    """
    What was done, and which objects failed.

    Args:
        blocked: Paths that are blocked by another owner's file.
        failed: The error by path.
        missing: Files missing or out of date in the tree, by path, with the error.
        before: Errors of the previous cycle: repeating one is no evidence against the endpoint.
        streaks: Endpoint-like failures in a row, by whether the path had failed before.
    """

    published: int = 0
    adopted: int = 0
    deleted: int = 0
    healed: int = 0
    downloaded_bytes: int = 0
    changes: Changes = field(default_factory=Changes)
    blocked: set[str] = field(default_factory=set)
    failed: dict[str, SidecarError] = field(default_factory=dict)
    missing: dict[str, SidecarError] = field(default_factory=dict)
    before: Mapping[str, SidecarError] = field(default_factory=dict)
    streaks: Counter[bool] = field(default_factory=Counter)

    def add(self, other: CycleResult) -> None:
        """
        Add the work of another step of the cycle.
        """
        self.published += other.published
        self.deleted += other.deleted
        self.healed += other.healed
        self.changes += other.changes
        self.blocked |= other.blocked
        self.failed |= other.failed

    def take_over(self, other: CycleResult) -> None:
        """
        Add what was downloaded to the tree, which another step publishes.
        """
        self.downloaded_bytes += other.downloaded_bytes
        self.blocked |= other.blocked

    def succeed(self, path: str, *, is_published: bool, is_healed: bool, is_new: bool) -> None:
        """
        Note that one file is up to date.
        """
        if is_published and not is_healed:
            self.changes.note(path, is_new=is_new)
        self.published += is_published
        self.adopted += not is_published
        self.healed += is_healed
        self.streaks.clear()

    def delete(self, path: str) -> None:
        """
        Note that one file was removed.
        """
        self.deleted += 1
        self.changes.deleted.append(path)

    def fail(self, path: str, error: SidecarError) -> None:
        """
        Note the failure of one object.

        Raises:
            SidecarError: The endpoint fails; the cycle ends.
        """
        self.failed[path] = error
        if error.reason in OF_THE_ENDPOINT:
            self.streaks[path in self.before] += 1
        if self.streaks[False] >= FAILURE_STREAK:
            raise error

    def fails_again(self, path: str) -> bool:
        """
        Whether to skip a path that failed before, because a streak of such paths failed again.
        """
        if self.streaks[True] < FAILURE_STREAK or path not in self.before:
            return False
        self.failed[path] = self.before[path]
        return True

    def fail_to_delete(self, path: str, error: OSError, target: Target) -> None:
        """
        Note a file that cannot be deleted; one of another owner is only logged, because no
        consumer needs its absence.

        Raises:
            OSError: The volume fails as a whole; the cycle ends.
        """
        if error.errno in VOLUME_ERRORS:
            raise error
        if path in target.managed.files:
            self.fail(path, explain_os_error(error, f"cannot delete {path!r}"))
        else:
            target.tell_kept(path, error)

    def fail_on_disk(self, path: str, error: OSError) -> None:
        """
        Note a file-system error of one path.

        Raises:
            OSError: The volume fails as a whole; the cycle ends.
        """
        if error.errno in VOLUME_ERRORS:
            raise error
        self.fail(path, explain_os_error(error, f"cannot write {path!r}"))
