"""
The volume: snapshots of commits, which of them the link shows, and whether it is whole.

The link is swapped in :meth:`Volume.show`; :meth:`Volume.tidy` removes older commits,
by count and age, as the runtime's `Snapshots` does; :class:`Inspection` looks for damage
and repairs it without the remote, if it can.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from git_sync_wrapper import snapshot
from git_sync_wrapper.options import Options
from git_sync_wrapper.plan import Failed
from git_sync_wrapper.reasons import failure
from git_sync_wrapper.settings import Settings
from git_sync_wrapper.sidecar import Parts
from git_sync_wrapper.snapshot import RECORD, Published, Rows
from git_sync_wrapper.work_folder import STORE, read_text
from sidecar_runtime.errors import SidecarError, counted
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explained, read_facts, stat_in
from sidecar_runtime.volume.own import folder_of, write_own
from sidecar_runtime.volume.snapshots import Snapshots, opened, remove_tree

LOCK = "lock"
FAILED = "failed"
"""
The reason of the last failure, so that one that repeats is known after a restart as
well; and for what git-sync has started over since.
"""
LIST = ".files"
AIRFLOWIGNORE = ".airflowignore"
# Matches any commit in both syntaxes of Airflow's ignore files: glob and regular
# expression.
_ANY_COMMIT = b"[0-9a-f]*\n"
# Inspects at every thirtieth poll, but at least this often.
INSPECTED_POLLS = 30
INSPECTED_SECONDS = 300.0

log = get_logger("volume")


class Build(NamedTuple):
    """
    A snapshot of a commit that is not shown yet.

    Args:
        name: The commit's hash, or with a number if that name is taken: names of
            snapshots are not used again while somebody may read them.
        changed: Its files that are not those of the published commit.
        rows: The list of its files.
    """

    name: str
    changed: list[str]
    rows: Rows


class Volume:
    """
    The open root of one wrapper.

    Raises:
        SidecarError: From every method: the volume failed. The link leads to the same
            commit as before, or possibly to the one that :meth:`show` was called with.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        self.root = options.root
        self._options = options
        self._fsync = settings.fsync
        self._new = ""
        """What was made last, which nobody may have seen."""
        self.is_link_full = False
        """Whether the link has a volume of its own, which is full."""
        folder, link = os.path.split(options.link)
        store = os.path.join(options.root, STORE)
        with explained(f"cannot use {options.root}"), ExitStack() as stack:
            above = stack.enter_context(folder_of(options.link, options.root))
            self.store = stack.enter_context(folder_of(f"{store}/{LOCK}", options.root))
            self.close = stack.pop_all().close
        self.snapshots = Snapshots(
            above,
            self.store,
            os.path.relpath(store, os.path.realpath(folder)),
            link=link,
            retain_count=settings.retain_count,
            retain_seconds=max(settings.retain_seconds, options.stale_worktree_timeout),
            fsync=settings.fsync,
        )

    # --- what is shown

    def published(self) -> Published:
        """
        Return the published commit, from disk.
        """
        with explained(f"cannot read {RECORD}"):
            return snapshot.read_record(self.snapshots.current(), self.store)

    def restore(self, fence: Fence, *, is_first: bool) -> Published:
        """
        Return the published commit, after showing the recorded one if the link is gone,
        or if a crash came between the record and the link. The caller holds the lock.

        Args:
            is_first: Whether a crash may have left something in the store.
        """
        # It is missing, too, when somebody has emptied the store.
        if is_first or not stat_in(AIRFLOWIGNORE, self.store):
            with explained(f"cannot clear {self.root}/{STORE}"), fence:
                self.snapshots.sweep()
                # Airflow's folder walk follows links: if it begins at the root, it must
                # skip this.
                with suppress(OSError):  # a full volume: what is published comes first
                    write_own(AIRFLOWIGNORE, _ANY_COMMIT, self.store, mode=0o664)
        published = self.published()
        with explained(f"cannot read {RECORD}"):
            last = str(read_facts(RECORD, self.store).get("snapshot", ""))
        is_other = last != published.name and (is_first or not published.name)
        if (
            is_other
            and self.snapshots.has(last)
            and not (published.name and self.damage(last))
        ):
            self._show_link(last, fence)
            log.warning("link_restored", revision=snapshot.commit_of(last))
            published = self.published()
        return published

    def damage(self, name: str) -> list[str]:
        """
        Return the damaged or missing files of a snapshot; one is the list of them.
        """
        rows = snapshot.read_rows(name + LIST, self.store)
        if not rows:
            return [name + LIST]
        with suppress(OSError), opened(name, self.store) as folder:
            return snapshot.damaged(rows, folder)
        return [name]

    # --- a new snapshot

    @contextmanager
    def compared(self, checkout: str) -> Iterator[tuple[int, int | None]]:
        """
        Open a checkout, and the published snapshot, if there is one that can be opened.
        """
        shown: int | None = None
        with (
            folder_of(f"{checkout}/.", self.root, opened) as folder,
            ExitStack() as stack,
        ):
            with suppress(OSError):
                shown = stack.enter_context(
                    opened(self.snapshots.current(), self.store)
                )
            yield folder, shown

    def build(
        self,
        commit: str,
        checkout: str,
        fence: Fence,
        check: Callable[[str, Fence], None],
    ) -> Build:
        """
        Return a snapshot that is equal to a checkout: one that is kept and undamaged,
        or a new one. Nobody sees it yet, and a later call returns the same.

        Args:
            check: Raises if the checkout was not complete while it was linked.
        """
        with (
            explained(f"cannot make a snapshot of {commit}"),
            self.compared(checkout) as (folder, shown),
        ):
            for name in self.snapshots.revisions():
                if snapshot.commit_of(name) != commit:
                    continue
                listed = snapshot.read_rows(name + LIST, self.store) or {}
                with suppress(OSError), opened(name, self.store) as kept:
                    if snapshot.is_copy(folder, kept, listed):
                        return Build(name, snapshot.changes(folder, shown), listed)
            name = commit
            number = 1
            while self.snapshots.has(name):
                number += 1
                name = f"{commit}.{number}"

            def fill(new: int) -> Build:
                changed = snapshot.build(folder, new, shown)
                check(checkout, fence)
                rows = snapshot.rows_of(new)
                write_own(
                    name + LIST, json.dumps(rows).encode(), self.store, mode=0o664
                )
                if self._fsync:
                    snapshot.flush(new)
                return Build(name, changed, rows)

            self._new = name
            return self.snapshots.add(name, fill, fence)

    def show(
        self,
        build: Build,
        facts: Mapping[str, Any],
        fence: Fence,
        *,
        fallback: str,
    ) -> None:
        """
        Publish a snapshot: write the record, and swap the link.

        A crash half-way leaves the old link with the new record; the next start swaps
        the link. A failure leaves the same, or the new link, if only the flush to disk
        failed: a crash of the node may undo that swap.
        """
        self.record(build.name, facts, fence, fallback=fallback)
        self._show_link(build.name, fence)

    def record(
        self, name: str, facts: Mapping[str, Any], fence: Fence, *, fallback: str = ""
    ) -> None:
        """
        Record a snapshot as published, for the settings of now.
        """
        options = self._options
        with explained(f"cannot write {RECORD}"), fence:
            snapshot.write_record(
                {
                    "revision": snapshot.commit_of(name),
                    "snapshot": name,
                    "published_at": round(time.time(), 3),
                    "repo": options.repo,
                    "ref": options.ref,
                    "made_by": options.made_by,
                    "fallback": fallback,
                    **facts,
                },
                self.store,
                fsync=self._fsync,
            )

    def record_refusal(self, commit: str, fence: Fence) -> None:
        """
        Record that the gate refuses a newer commit, so that one-shots do not wait for
        it.
        """
        with fence, suppress(OSError):  # without room, one-shots wait
            record = read_facts(RECORD, self.store)
            if record:
                snapshot.write_record(
                    {**record, "refused": commit}, self.store, fsync=self._fsync
                )

    def _show_link(self, name: str, fence: Fence) -> None:
        try:
            with explained(f"cannot swap the link {self._options.link}"):
                _move_aside(self._options.link)
                self.snapshots.swap_link(name, fence)
        except SidecarError as error:
            devices = {os.fstat(n).st_dev for n in (self.snapshots.root, self.store)}
            self.is_link_full = error.reason == "target_full" and len(devices) > 1
            raise

    # --- failed runs

    def failed(self, reason: str) -> Failed:
        """
        Return a failure, with what is noted of those before it.
        """
        before, _, tried = read_text(FAILED, self.store).partition(" ")
        return Failed(reason, before, tried)

    def note(self, reason: str = "", tried: str = "") -> None:
        """
        Note a failure, and what git-sync has started over for; or a success.
        """
        with suppress(OSError):
            write_own(FAILED, f"{reason} {tried}".encode(), self.store)

    # --- older ones

    def tidy(self, fence: Fence) -> None:
        """
        Remove commits that need not be kept any longer; none if the link shows nothing.
        """
        try:
            self.snapshots.prune(self.snapshots.current(), fence)
            self._remove_lists()
        except (OSError, SidecarError) as error:
            log.warning("leftover_kept", error=str(error))

    def drop_oldest(self, fence: Fence) -> bool:
        """
        Remove the oldest kept commit, even before its time; return False if there is
        none but a new one, which has not found room either.
        """
        with explained(f"cannot clear {self.root}/{STORE}"):
            dropped = self.snapshots.drop_oldest(fence)
            self._remove_lists()
        is_old = dropped not in ("", self._new)
        if is_old:
            log.info("snapshot_dropped", revision=dropped)
        return is_old

    def _remove_lists(self) -> None:
        for name in os.listdir(self.store):
            folder = name.removesuffix(LIST)
            if folder != name and not self.snapshots.has(folder):
                remove_tree(name, self.store)


class Inspection:
    """
    Looks for damage: when that is due, and after that while anything is damaged.

    Whoever can write to the volume may damage published files, and so may a node that
    loses power. git-sync's repository on the volume usually has all that a repair
    needs, even if the remote is down.

    Attributes:
        problem: What is damaged; empty if nothing is.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._due_at = 0.0
        self.problem = ""

    def look(
        self,
        volume: Volume,
        shown: Published,
        *,
        is_asked_for: bool,
        is_holder: bool = True,
    ) -> None:
        """
        Inspect the published commit, if that is due; it is in any case if somebody asks
        for it.

        Args:
            is_holder: Whether this process could list the files again. A holder of
                another version may list them otherwise.
        """
        is_due = time.monotonic() >= self._due_at or is_asked_for or self.problem
        if not (shown.commit and is_due):
            return
        self._due_at = time.monotonic() + min(
            INSPECTED_SECONDS, INSPECTED_POLLS * self._parts.settings.interval_seconds
        )
        damaged = volume.damage(shown.name)
        if not is_holder and damaged == [shown.name + LIST]:
            damaged = []
        if not damaged:
            self.problem = ""
            return
        if not self.problem:
            log.warning(
                "damage_found",
                revision=shown.commit,
                files=len(damaged),
                paths=damaged[: snapshot.NAMED_PATHS],
            )
        self.problem = (
            f"damaged or missing in {shown.commit}: "
            f"{counted(len(damaged), 'file')}, such as {damaged[0]}"
        )

    def repair(self, volume: Volume, published: Published, fence: Fence) -> None:
        """
        Replace the published commit's damaged snapshot by one from git-sync's
        repository here, without the remote. A commit that is checked out in part goes
        the way of a new one.
        """
        parts = self._parts
        commit = published.commit
        engine = parts.engine
        if published.mismatch(parts.options) or parts.options.sparse_checkout_file:
            return
        checkout = engine.check_out(commit, fence)
        if not checkout:
            return
        try:
            build = volume.build(commit, checkout, fence, engine.check_restored)
            engine.keep(commit)
            volume.show(
                build,
                {**published.facts, "refused": published.refused},
                fence,
                fallback=published.fallback,
            )
            engine.work.clear()
        except (SidecarError, OSError) as error:
            # The cycle goes on: a newer commit may be whole.
            log.warning("restore_failed", revision=commit, error=str(error))
            return
        log.warning(
            "damage_repaired",
            revision=commit,
            files=len(build.changed),
            paths=build.changed[: snapshot.NAMED_PATHS],
        )
        self.problem = ""


def _move_aside(link: str) -> None:
    """
    Move aside a file or folder that is where the link should be.

    Raises:
        SidecarError: ``link_blocked``: it cannot be moved, such as a mount.
    """
    aside = f"{link}.replaced-{int(time.time())}"
    if os.path.exists(link) and not os.path.islink(link):
        try:
            os.rename(link, aside)
        except OSError as error:
            raise failure(
                "link_blocked", f"cannot move {link} aside: {error.strerror}"
            ) from error
        log.warning("folder_moved_aside", folder=link, to=aside)
