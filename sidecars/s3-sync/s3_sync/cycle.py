"""
The story of one cycle (:meth:`Sync.cycle`), from a locked volume to its outcome.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from s3_sync.build import Builder, Parts
from s3_sync.holds import NAMED_FILES, Brake, Hold, Holds, Settling
from s3_sync.names import Files, not_held
from s3_sync.plan import (
    Done,
    State,
    There,
    Wait,
    Work,
    decide,
    kept_paths,
    without_clashes,
)
from s3_sync.published import UNFINISHED, Published, now
from s3_sync.readiness import readiness
from s3_sync.reasons import Failures, failure
from s3_sync.tree import AT_ONCE, INSPECTIONS, Build, Tree
from s3_sync.unread import LASTING_CYCLES, Shortage, explain
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger

# The part of a cycle's time in which objects are read; the rest is for publishing.
READING_SHARE = 0.9
# What the outcome of a held deletion counts.
HELD = "files_held"

log = get_logger("cycle")


class Sync:
    """
    Brings one open volume up to date with one source, cycle by cycle; belongs to one
    thread. Another volume is another one.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._layout = parts.layout
        self._record = parts.layout.record
        settings = parts.settings
        self._brake = Brake(settings.max_delete_percent)
        self._builder = Builder(parts, self.show)
        self._settling = Settling(settings.settle_seconds)
        self._shortage = Shortage()
        # What was shown when it was recorded last, or when this process opened the volume.
        self._recorded: Files = {}

    def take_over(self, fence: Fence) -> None:
        """
        Inspect all that consumers see, and say whether they can use it, before S3
        answers, and before anything is done that grows with what is retained.

        Raises:
            OSError: The volume fails.
        """
        published = self._record.published
        if published and not self._layout.has(published.name):
            log.warning("published_unknown", name=published.name)
            # It is unknown which files on disk belong to it. In memory only: the record
            # on disk is right again once the list is.
            self._record.published = None
            self._record.owner = "unknown"
        self._remember(self._layout.shown)
        self._layout.inspect(AT_ONCE)
        log.info("target_acquired", managed_files=len(self._recorded))
        self.show(fence)

    def close(self) -> None:
        """
        Close all open folders and files; what could not be read there is told no more.
        """
        self._builder.unread.note({}, {}, {})
        self._builder.unread.show({})
        self._layout.close()
        self.parts.volume.close()

    async def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle on a locked volume.

        Raises:
            SidecarError: The cycle failed. A snapshot that is shown stays; in place, files
                may have been replaced already, and the record says so.
            OSError: The volume fails.
            CycleAbandoned: The fence was revoked.
        """
        settings = self.parts.settings
        layout = self._layout
        builder = self._builder
        unread = builder.unread
        # First, so that all waiting below counts. Opening a volume does not: a slow start
        # takes from the share of publishing.
        until = time.monotonic() + READING_SHARE * settings.timeout_seconds
        # Whatever fails from here on, S3 above all: a cycle without a listing is no time
        # in which a listing was held back.
        self._brake.begin_cycle()

        # Somebody edited or removed a published file. A link that somebody changed needs
        # no S3: it is set again at once. Readiness says both now, because S3 may be down,
        # or downloads take minutes.
        if layout.inspect(INSPECTIONS[settings.source_kind]) or layout.problem:
            layout.correct(fence)
            self.show(fence)

        # What S3 has. A listing shows some moment after the request.
        asked_at = time.monotonic()
        # A volume that survived its pod has seen newer pointers than this process: an old
        # one is a replay.
        read = await self.parts.source.read(fence, self._record.sequences)
        # A release that this volume cannot have fails here; damage waits for the next one.
        state = self._wanted(read)

        # Objects that could not be read before: forgotten once they are gone or held,
        # due once they changed, or an operator asks. Before the repair, which leaves
        # alone what is not due; and shown now, for the ends without a build.
        shown = layout.shown
        unread.note(state.files, shown.intact, {}, is_asked_for=fence.is_asked_for)
        unread.show(state.skipped)

        # Damage is repaired before anything new is considered, and also while a new
        # state settles, is held back or refused. A crash leaves whole files, and the next
        # start finds the others damaged. What no source can restore any more (of an
        # archived object, or with DELETE=none of a deleted one) is no longer ours.
        damaged = len(shown.damaged)
        volume_error = await builder.repair(state, until, fence)
        counts = {"files_healed": damaged - len(shown.damaged)}
        self.parts.status.metrics.files.healed.inc(counts["files_healed"])
        for path in shown.damaged & state.kept:
            shown.forget(path, fence)
        # The decision and the gate read there whether consumers have what they need.
        if damaged:
            self.show(fence)

        # One answer to what is to be done now, and if nothing, until when and why.
        holds = self._meet(state, asked_at, fence)
        there = There(
            files=shown.files,
            intact=shown.intact,
            published=self._record.published,
            is_ready=self.parts.status.readiness.ready,
            is_snapshot=settings.is_snapshot,
        )
        todo = decide(state, there, holds, time.time())
        # No build follows that would tell why a repair failed, or make room for it.
        if volume_error and not isinstance(todo, Work):
            raise volume_error
        if isinstance(todo, Wait):
            return self._waiting(todo, counts)
        if isinstance(todo, Done):
            self._renew_record(state, fence)
            # Retained snapshots get older, and leftovers stay after a failure: once in a
            # round of inspections is soon enough.
            if not shown.turn:
                self._tidy(fence)
            # What is missing rests: it was tried before, and its error is known. It counts
            # as lacking in one more cycle, after some of which a one-shot ends.
            errors = unread.errors
            missing = {path: errors[path] for path in todo.missing}
            self._shortage.meet(missing)
            return self._outcome(state, missing, counts)

        # New files are brought beside what is shown (snapshots), or one by one into it
        # (in place, where the record says so first if consumers could see a mix). A crash
        # costs downloads only: the next start goes on with each verified file in place, or
        # again beside it.
        build = await builder.build(state, todo, until, fence)

        # Files of a snapshot belong together: an upload, an outage or a change of a
        # policy may have happened during the cycle. So a new lack settles for a cycle,
        # without S3_SYNC_SETTLE, too; before the gate, which need not judge a part. The
        # next cycle goes on with the folder.
        self._shortage.meet(build.missing)
        if self._shortage.is_new and settings.is_snapshot:
            why = explain(build.missing, build.state.files)
            said = f"{why.message}; perhaps an upload is not over: looked at again"
            why = SidecarError("source_unsettled", said, why.advice)
            return Outcome("waiting", self._revision, counts | _counts(build), why=why)

        # The gate (snapshots only) sees exactly what would be shown. It may accept less,
        # or only an earlier release, for a pod that is not ready.
        try:
            build = await builder.judge(build, until, fence)
        except RevisionRefused as refusal:
            return self._refused(refusal, counts)

        # From here on, consumers see the change; in place, they have seen files come, and
        # others go now. The layout knows the order in which files, record and link follow,
        # and what a crash in between leaves.
        layout.publish(build, lambda: self._note_publish(build, counts, fence), fence)

        # Only what is recorded makes the former state needless; the next cycle removes what
        # a crash leaves. The session shows what came out, however a cycle ends.
        self._tidy(fence)
        return self._outcome(build.state, build.missing, counts, build.refusal)

    def show(self, fence: Fence) -> None:
        """
        Show readiness, metrics and status of what is published; note damage in the
        record, which a standby reads, if the volume takes it.
        """
        record = self._record
        status = self.parts.status
        shown = self._layout.shown
        published = record.published
        files = len(shown.files)
        if published:
            # A list that was lost may have dropped some of the files.
            damaged = len(shown.damaged) + max(0, published.files - files)
            with suppress(OSError):
                record.write(fence, published._replace(damaged=damaged))
        status.readiness = readiness(record.published, self._layout.problem)
        status.show(managed_files=files)
        published = record.published or Published()
        metrics = status.metrics
        metrics.files.managed.set(files)
        metrics.partial.set(published.missing > 0)
        metrics.gate.fallback.set(bool(published.fallback))
        metrics.last_publish.set(published.published_at)

    def _tidy(self, fence: Fence) -> None:
        """
        Remove what is needless; what stays is no reason for a failure.
        """
        try:
            self._layout.tidy(fence)
        except OSError as error:
            log.warning("leftover_kept", name=error.filename, error=error.strerror)

    # --- what is wanted, and what is there

    def _wanted(self, read: State) -> State:
        """
        Return the state that this volume should have, and can.

        Raises:
            SidecarError: ``release_invalid``: it cannot.
        """
        settings = self.parts.settings
        # First what is kept: it needs the listing as it is. Then what clashes, which is
        # no longer part of the state for any later step.
        kept = kept_paths(
            read,
            self._layout.shown.files.keys(),
            owner=self._record.owner,
            is_in_place=not settings.is_snapshot,
            delete=settings.delete,
        )
        return without_clashes(
            read._replace(kept=kept), self.parts.volume.fold, settings.prefix
        )

    def _meet(self, state: State, asked_at: float, fence: Fence) -> Holds:
        """
        Let all that remembers listings meet this one, once in a cycle; return what may
        keep the cycle from acting.
        """
        seconds = self.parts.settings.settle_seconds
        unread = self._builder.unread
        left_seconds = 0.0
        if seconds:
            left_seconds = self._settling.meet(state.files, asked_at, time.monotonic())
            # An object that changes all the time holds back only itself.
            unread.hold_back(
                self._settling.restless,
                state.files,
                self._layout.shown.intact,
                rest_seconds=seconds,
            )
        published = self._record.published or Published()
        # This state was acted upon before: a repair or a retry does not wait.
        if published.aim == state.revision:
            left_seconds = 0.0
        settling = failure(
            "source_unsettled",
            f"the listing has not stayed the same for S3_SYNC_SETTLE ({seconds:g} s)",
        )
        return Holds(
            settle=(settling, left_seconds) if left_seconds else None,
            # The time of a listing that settles is not the time of a hold. Rests come
            # after hold_back, which adds to them; a recall asks for them, too.
            brake=None if left_seconds else self._judge_mass_deletion(state, fence),
            refusal=self._builder.recall(state),
            resting=unread.resting,
        )

    def _judge_mass_deletion(self, state: State, fence: Fence) -> Hold:
        """
        Return why a listing that lacks too many files is held back, and for how long.

        Files that are lost already are not missed. Those on disk may belong to another
        source; but where nobody knows which, because the record is lost, they count.
        """
        held = self._layout.shown.intact
        record = self._record
        is_other = record.published is None and record.owner != "unknown"
        # Half a change of other settings, which nobody can tell from these files.
        is_mixed = record.published is not None and not record.published.aim
        # Somebody published a release as it is; a listing may be a mistake.
        if state.is_whole or is_other or is_mixed:
            return None
        return self._brake.judge(
            held.keys() - state.files.keys() - state.kept,
            len(held),
            is_asked_for=fence.is_asked_for,
        )

    # --- outcomes

    @property
    def _revision(self) -> str:
        return (self._record.published or Published()).revision

    def _waiting(self, wait: Wait, counts: dict[str, int]) -> Outcome:
        # Nothing is removed meanwhile: without a publish, what is retained does not grow.
        # What the gate refuses is told as after a build, with its findings.
        if isinstance(wait.why, RevisionRefused):
            return self._refused(wait.why, counts)
        if wait.why.reason == "deletion_held":
            counts[HELD] = self._brake.missing
        else:  # what follows a change is never the same lack
            self._shortage = Shortage()
        return Outcome(
            "waiting",
            self._revision,
            counts,
            why=wait.why,
            until=wait.until,
            is_enough=wait.is_enough,
        )

    def _refused(self, refusal: RevisionRefused, counts: Mapping[str, int]) -> Outcome:
        self.parts.status.show(refused=refusal.facts())
        return Outcome(
            "partial",
            self._revision,
            counts,
            why=refusal,
            is_enough=self._record.published is not None,
        )

    def _outcome(
        self,
        state: State,
        missing: Failures,
        counts: Mapping[str, int],
        refusal: RevisionRefused | None = None,
    ) -> Outcome:
        """
        Return the outcome of a cycle that has published, or had nothing to do.
        """
        # No refusal stands any more, unless this is a fallback: see below.
        self.parts.status.show(refused={}, **state.facts)
        # Without one of these, nothing was done that a person would look for in the log.
        names = ("files_published", "files_deleted", "files_healed")
        counts = counts if any(counts.get(name) for name in names) else {}
        # A fallback was published: what a person has to do is to fix the refused state,
        # whatever the fallback lacks.
        if refusal:
            return self._refused(refusal, counts)
        # A one-shot waits for the rest, but not forever: a task waits for it.
        if missing:
            return Outcome(
                "partial",
                counts=counts,
                why=explain(missing, state.files),
                is_enough=self._shortage.cycles >= LASTING_CYCLES,
            )
        return Outcome("changed" if counts else "unchanged", self._revision, counts)

    # --- the record

    def _renew_record(self, state: State, fence: Fence) -> None:
        """
        Record what is published already: the record could not be written before, or
        the same release was published again, so that an older pointer is a replay; also
        with another key, after which the sequence may be lower.
        """
        record = self._record
        published = record.published
        assert published
        record.write(fence, published._replace(sequences=state.sequences))

    def _note_publish(self, build: Build, counts: dict[str, int], fence: Fence) -> None:
        """
        Record and log what is published; add its numbers to those of the cycle.
        """
        fence.wait(0)  # what is not recorded is counted by the next cycle
        record = self._record
        before = record.published or Published(name=UNFINISHED)
        tree = self._layout.shown
        # Against what was recorded last, and not against the last cycle: a change that
        # took several cycles is counted once, when it is over.
        found = changes(self._recorded, tree.files)
        numbers: dict[str, Any] = {kind: len(paths) for kind, paths in found.items()}
        # With files missing, it is no revision of the source. The aim is one all the
        # same: the next cycle tells by it that nothing newer is there.
        said = before._replace(
            revision="" if build.missing else build.state.revision,
            aim=build.fallback or build.state.revision,
            name=build.name,
            missing=len(build.missing),
            fallback=build.fallback,
            files=len(tree.files),
            damaged=0,
            sequences=build.state.sequences,
        )
        is_new = before.name == UNFINISHED or said.revision not in ("", before.revision)
        if any(numbers.values()):  # otherwise those of the last publish stay
            is_new = True
            said = said._replace(**numbers)
            log.info(
                "files_changed",
                name=build.name,
                **{f"files_{kind}": number for kind, number in numbers.items()},
                **{kind: paths[:NAMED_FILES] for kind, paths in found.items() if paths},
            )
        # Before the write, which may fail: the files are there all the same, and the next
        # cycle would find nothing to count.
        metrics = self.parts.status.metrics.files
        published = numbers["added"] + numbers["changed"]
        metrics.published.inc(published)
        metrics.deleted.inc(numbers["deleted"])
        self._remember(tree)
        # Alerts look at the age of what is published: repairs alone do not change it, nor
        # does a partial state without a new file, or a record that the volume refused.
        if is_new:
            said = said._replace(published_at=now())
        record.write(fence, said)
        counts |= _counts(build) | {
            "files_published": published,
            "files_deleted": numbers["deleted"],
        }

    def _remember(self, tree: Tree) -> None:
        self._recorded = dict(tree.files)
        self.parts.status.metrics.files.unverified.set(
            sum(1 for held in tree.files.values() if not held.is_verified)
        )


def changes(before: Files, after: Files) -> dict[str, list[str]]:
    """
    Return what changes between two states, by kind; what is adopted counts as added,
    and restoring a damaged file changes nothing.
    """
    differs = not_held(after, after, before)
    return {
        "added": [path for path in differs if path not in before],
        "changed": [path for path in differs if path in before],
        "deleted": [path for path in before if path not in after],
    }


def _counts(build: Build) -> dict[str, int]:
    return {
        "files_missing": len(build.missing),
        "keys_skipped": len(build.state.skipped),
        "downloaded_bytes": build.fill.downloaded_bytes,
    }
