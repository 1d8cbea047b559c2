"""
One cycle: lock → inspect and repair → poll → git-sync → judge → snapshot → publish →
hooks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from git_sync_wrapper import snapshot
from git_sync_wrapper.gate_verdict import Judge
from git_sync_wrapper.plan import Done, Situation, Wait, Work, decide, starts_over
from git_sync_wrapper.reasons import LOGIN, REASONS, failure
from git_sync_wrapper.sidecar import Parts
from git_sync_wrapper.snapshot import Published
from git_sync_wrapper.volume import LOCK, Inspection, Volume
from sidecar_runtime.errors import GaveUp, SidecarError, explain
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.gate.gate import Finding, RevisionRefused
from sidecar_runtime.health import Outcome, Readiness, waits_for_holder
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import explain_os_error, read_holder
from sidecar_runtime.volume.own import clear_way

log = get_logger("cycle")


class GitSyncExitError(GaveUp):
    """
    The process exits when git-sync would, with git-sync's exit code: after too many
    failures before the first publication, or after a failed hook of a one-shot.
    """

    exit_code = 1


class Session:
    """
    State of the thread that runs cycles.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._judge = Judge(parts)
        self._inspection = Inspection(parts)
        self._arrived = ""
        """What git-sync brought last, or what this process found published."""

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The cycle failed; the published commit stays.
            GaveUp: Too many failures before the first publication, as in git-sync.
            CycleAbandoned: The fence was revoked.
        """
        parts = self._parts
        started = time.monotonic()
        # git-sync counts the first sync of a process as a change.
        is_first = not parts.past.announced
        parts.logins.forget(is_refused=False)
        if fence.is_asked_for and parts.gate:
            parts.gate.ask_again()
        try:
            with fence:
                pass  # a thread that resumes late must not touch its successor's volume
            with closing(Volume(parts.settings, parts.options)) as volume:
                outcome = self._cycle(volume, fence)
        except CycleAbandoned:
            self._arrived = ""  # ask the volume again
            raise
        # A bug, or no memory, counts as any other failure: git-sync would have ended.
        except Exception as found:
            error = explain(found)
            past = parts.past
            # somebody removed the link
            if past.readiness.ready and not os.path.exists(parts.options.link):
                past.readiness = past.readiness._replace(problem=error)
            parts.metrics.git_sync.count("error", started)
            raise self._count_failure(error) from found
        if outcome.result != "waiting":
            parts.past.failures = 0
            parts.hooks.clear_report()
            is_news = outcome.result == "changed" or (is_first and parts.past.announced)
            parts.metrics.git_sync.count("success" if is_news else "noop", started)
        return outcome

    # --- the story

    def _cycle(self, volume: Volume, fence: Fence) -> Outcome:
        # Another pod on the same volume, or one that a rolling update is about to end,
        # may hold the lock: then it publishes, and this process only looks.
        if not self._lock(volume, fence):
            return self._stand_by(volume, fence)
        is_first = True
        while True:
            try:
                return self._as_holder(volume, fence)
            except SidecarError as error:
                if error.reason != "target_full" or volume.is_link_full:
                    raise
                # git-sync does not recover from a full volume: an incomplete checkout
                # stays. So its repository goes first, because it collects garbage by
                # number of packs, not by size; then replaced commits, the oldest first.
                self._parts.engine.start_over(
                    is_news=is_first and not self._parts.past.failures
                )
                if not (is_first or volume.drop_oldest(fence)):
                    raise
                is_first = False

    def _as_holder(self, volume: Volume, fence: Fence) -> Outcome:
        """
        Run the cycle of the process that holds the lock.

        Raises:
            SidecarError: It failed; ``target_full`` if there was no room: the caller
                should make some, and try again.
        """
        parts = self._parts
        # Airflow reads what is published now, whether or not the remote answers: a
        # removed link and damaged files come back first.
        published = self._restore(volume, fence)
        # Whoever has changed GITSYNC_REPO keeps the old DAGs until the first commit of
        # the new repository; but they are no part of the decision.
        if published.is_elsewhere(parts.options):
            published = Published()
        # The one-shot of a task pod has an empty volume: git-sync must run whatever the
        # remote has, so nobody asks twice.
        is_all_new = parts.settings.one_shot and not os.path.lexists(parts.engine.root)
        situation = Situation(
            published=published,
            arrived=self._arrived,
            remote=None if is_all_new else self._poll(fence),
            damage=self._inspection.problem,
            refused=self._judge.wait,
        )
        match decide(situation, parts.options, time.monotonic()):
            case Done():  # nearly every cycle: nothing was pushed
                return self._confirm(published, fence)
            case Wait() as wait:  # the gate refuses the newest commit
                return self._refused(volume.published(), wait, fence)
            case Work():
                return self._bring(volume, published, fence)

    def _bring(self, volume: Volume, published: Published, fence: Fence) -> Outcome:
        """
        Let git-sync bring what the ref names now, and publish it.
        """
        parts = self._parts
        commit = self._run(volume, fence)
        try:
            outcome = self._publish(commit, volume, published, fence)
        finally:
            with suppress(OSError):  # the next run does so as well
                parts.engine.work.clear()
        # Not the poll's answer: the ref may have moved since, or a replica was behind.
        self._arrived = parts.options.ref if parts.options.is_pinned else commit
        return outcome

    def _run(self, volume: Volume, fence: Fence, *, is_over: bool = False) -> str:
        """
        Let git-sync run; return the commit that is checked out. A failure that repeats
        may come from the repository here: then it runs again, from an empty one.

        Args:
            is_over: Whether it has started over in this cycle: once is enough, whoever
                pushes meanwhile.
        """
        engine = self._parts.engine
        runs = self._parts.metrics.runs
        try:
            commit = engine.run(fence)
        except SidecarError as error:
            runs("error").inc()
            failed = volume.failed(error.reason)
            asked = engine.asked(fence) if failed.is_suspicious else ""
            if is_over or not starts_over(failed, asked):
                volume.note(error.reason, failed.tried)
                raise
            volume.note(error.reason, asked)
            engine.start_over()
            return self._run(volume, fence, is_over=True)
        runs("success").inc()
        volume.note()
        return commit

    def _publish(
        self, commit: str, volume: Volume, published: Published, fence: Fence
    ) -> Outcome:
        """
        Publish the commit that is checked out, if the gate accepts it; while nothing is
        published, otherwise the newest one before it that the gate accepts.
        """
        parts = self._parts
        is_one_shot = parts.settings.one_shot
        is_first = not published.commit
        is_same = commit == published.commit and published.is_made_as_asked(
            parts.options
        )
        # Without facts, the record was lost: they come from git again.
        if is_same and published.facts and not self._inspection.problem:
            if not published.is_settled(parts.options):
                # Record that nothing newer is refused any more, and that this ref has
                # it.
                volume.record(published.name, published.facts, fence)
            return self._confirm(volume.published(), fence)
        refusal = self._judge.judge(
            commit, volume, fence, is_urgent=is_one_shot or is_first
        )
        if refusal is None:
            accepted = commit
        elif is_first:
            accepted = self._judge.fall_back(refusal, volume, fence)
        else:
            # A tag may move: then the commit that it named before is the last good one.
            self._judge.note(refusal)
            volume.record_refusal(commit, fence)
            accepted = ""
        if accepted:
            # The same again, such as a repair, was published before.
            self._publish_accepted(
                accepted,
                volume,
                fence,
                fallback=commit if refusal else "",
                kept={"published_at": published.published_at} if is_same else {},
            )
            self._judge.note(refusal)
            self._inspection.problem = ""
            self._set_readiness(volume.published())
            self._announce(accepted, fence)
            if self._judge.undecided and not is_one_shot:
                raise self._judge.undecided
        # Only now: to fall back is to have earlier commits judged, and the first verdict
        # of all that expires ends the wait.
        wait = self._judge.wait
        if wait is None:
            return Outcome("changed", commit)
        outcome = self._refused(volume.published(), wait, fence)
        return (
            replace(outcome, counts={"commits_published": 1}) if accepted else outcome
        )

    def _publish_accepted(
        self,
        commit: str,
        volume: Volume,
        fence: Fence,
        *,
        fallback: str,
        kept: Mapping[str, Any],
    ) -> None:
        """
        Publish the commit that is checked out and accepted.

        Args:
            kept: What its record keeps.
        """
        parts = self._parts
        engine = parts.engine
        build = volume.build(commit, engine.worktree, fence, engine.check_whole)
        facts = snapshot.describe(parts.git, engine.worktree, commit, fence)
        facts["changed"] = build.changed[: snapshot.NAMED_PATHS]
        lacks = engine.unfiltered(build.rows, fence)
        unfiltered = sorted(f"{path} {why}" for path, why in lacks.items())
        if unfiltered:
            facts["unfiltered"] = unfiltered[: snapshot.NAMED_PATHS]
            log.warning("filter_missing", revision=commit, paths=facts["unfiltered"])
        engine.keep(commit)
        volume.show(build, {**facts, **kept}, fence, fallback=fallback)
        log.info(
            "commit_published",
            revision=commit,
            files_changed=len(build.changed),
            **facts,
        )

    # --- the volume

    def _lock(self, volume: Volume, fence: Fence) -> bool:
        """
        Whether this process has the lock. If it cannot tell, it is ready as a standby
        is.
        """
        try:
            clear_way(LOCK, volume.store)
            return self._parts.past.lock.try_acquire(LOCK, volume.store)
        except OSError as error:
            self._look_on(volume, fence)
            raise explain_os_error(error, f"cannot lock {volume.root}") from error

    def _restore(self, volume: Volume, fence: Fence) -> Published:
        """
        Return what is published, restored as far as the remote is not needed: a removed
        link, and damaged files.
        """
        published = volume.restore(fence, is_first=not self._arrived)
        if published.commit:
            # Tasks that started with an older commit have had their time.
            volume.tidy(fence)
            self._arrived = self._arrived or published.commit
            self._inspection.look(volume, published, is_asked_for=fence.is_asked_for)
            if self._inspection.problem:
                self._set_readiness(published)  # a repair may take its time
                self._inspection.repair(volume, published, fence)
                published = volume.published()
        self._set_readiness(published)
        return published

    def _look_on(self, volume: Volume, fence: Fence) -> Published:
        """
        Return what is published, without the lock.
        """
        published = volume.published()
        self._inspection.look(
            volume, published, is_asked_for=fence.is_asked_for, is_holder=False
        )
        self._set_readiness(published, is_holder=False)
        return published

    def _stand_by(self, volume: Volume, fence: Fence) -> Outcome:
        """
        Wait while another process holds the lock. A one-shot ends once the holder has
        published the remote's commit, or an older one because its gate refuses that
        commit.
        """
        self._arrived = ""
        published = self._look_on(volume, fence)
        holder = read_holder(LOCK, volume.store)
        waits = waits_for_holder(holder)
        # Somebody has to end the holder: it publishes for other settings than ours.
        other = published.mismatch(self._parts.options)
        if other:
            said = f"{other}, and {holder} holds the lock"
            waits = replace(waits, why=failure("published_elsewhere", said))
        is_good = published.commit and not (other or self._inspection.problem)
        if not (self._parts.settings.one_shot and is_good):
            return waits
        try:
            remote = self._poll(fence)
        except SidecarError as error:  # its user should know
            return replace(waits, why=error)
        if remote and remote in (published.fallback, published.refused):
            said = f"the log of {holder} has the reason"
            refusal = RevisionRefused(remote, [Finding("", None, said)])
            self._judge.note(refusal)
            return self._refused(published, Wait(refusal), fence)
        # Of a GitHub App only the holder can ask; a ref may be the hash of a tag.
        if remote in (None, published.commit, published.ref):
            return self._confirm(published, fence)
        return waits

    # --- the remote

    def _poll(self, fence: Fence) -> str | None:
        """
        Return the remote's commit; None if only git-sync can ask for it: of a GitHub
        App, it alone gets a new token.
        """
        parts = self._parts
        if parts.options.is_pinned:
            return parts.options.ref
        for is_again in (False, True):
            try:
                wanted = parts.git.poll(fence)
                break
            except SidecarError as error:
                is_login = error.reason in LOGIN
                if is_login and parts.options.is_github_app:
                    return None
                if is_again or not is_login:
                    parts.metrics.polls("error").inc()
                    raise
                # it may have been replaced meanwhile
                parts.logins.forget(is_refused=True)
        parts.metrics.polls("same" if wanted == self._arrived else "new").inc()
        return wanted

    # --- the end of a cycle

    def _confirm(self, published: Published, fence: Fence) -> Outcome:
        """
        Confirm that the published commit is the remote's; the first time this counts as
        a change. The outcome is partial if only a person can give what it lacks.
        """
        commit = published.commit
        self._judge.note(None)
        self._set_readiness(published)
        if self._parts.past.announced != commit:
            self._announce(commit, fence)
        unfiltered = snapshot.unfiltered_of(published.facts)
        lack = unfiltered or self._parts.hooks.problem
        if not lack:
            return Outcome("unchanged", commit)
        why = failure("filter_missing" if unfiltered else "hook_failed", lack)
        return Outcome("partial", commit, why=why, is_enough=True)

    def _refused(self, published: Published, wait: Wait, fence: Fence) -> Outcome:
        """
        Return the outcome of a refusal. Unless the ref is pinned, a one-shot may still
        succeed, and the first sync of a process starts the hooks for what is published.
        """
        commit = published.commit
        self._set_readiness(published)
        parts = self._parts
        is_enough = bool(commit) and not (
            parts.options.is_pinned or published.is_elsewhere(parts.options)
        )
        if is_enough and not parts.past.announced:
            self._announce(commit, fence)
        return Outcome(
            "partial",
            commit,
            why=wait.why,
            until=time.time() + max(0.0, wait.until - time.monotonic()),
            is_enough=is_enough,
        )

    def _announce(self, commit: str, fence: Fence) -> None:
        """
        Start the hooks; a one-shot waits for them.

        Raises:
            GaveUp: A hook failed in a one-shot, as in git-sync.
        """
        parts = self._parts
        if parts.settings.one_shot:
            problem = parts.hooks.announce_once(commit, fence)
            if problem:
                raise GitSyncExitError(
                    "hook_failed",
                    f"{commit} is published, but {problem}",
                    REASONS["hook_failed"].advice,
                )
        else:
            parts.hooks.announce(commit)
        parts.past.announced = commit

    def _count_failure(self, error: SidecarError) -> SidecarError:
        """
        Note a failure; return the error that ends the cycle: before the first
        publication, the process exits after as many failures as git-sync would.
        """
        past = self._parts.past
        options = self._parts.options
        past.failures += 1
        self._parts.hooks.report(error, past.failures)
        is_published = past.readiness.revision and not self._parts.settings.one_shot
        if isinstance(error, GaveUp) or is_published:
            return error
        if 0 <= options.init_max_failures <= past.failures:
            return GitSyncExitError(error.reason, error.message, error.advice)
        error.retry_within_seconds = options.init_period or options.period
        return error

    def _set_readiness(self, published: Published, *, is_holder: bool = True) -> None:
        """
        Say what /readyz and the page answer from now on.

        Args:
            is_holder: Whether this process can change what is published. A standby is
                ready for another commit as well: a rolling update ends the holder only
                once it is ready.
        """
        past = self._parts.past
        options = self._parts.options
        refusal = self._judge.refusal
        self._parts.metrics.gate.fallback.set(bool(published.fallback))
        self._parts.metrics.last_publish.set(published.published_at or 0)
        past.details = snapshot.details_of(published.facts)
        if refusal:
            past.details["refused"] = refusal.facts()
        problem: SidecarError | None = None
        if not published.commit:
            problem = failure(
                "nothing_published",
                f"{options.link} shows no commit{self._judge.why_nothing}",
            )
        elif self._inspection.problem:
            problem = failure("files_damaged", self._inspection.problem)
        elif options.is_pinned and refusal:
            problem = refusal
        elif is_holder and (elsewhere := published.problem(options)):
            problem = failure("published_elsewhere", elsewhere)
        shown = published.commit
        shortfall = published.shortfall(options)
        # A rollout must not wait until this process can read the form of another
        # version.
        if not (is_holder or published.commit) and os.path.isdir(options.link):
            shown = os.path.basename(os.path.realpath(options.link))
            shortfall = f"the holder of the lock is another version, and shows {shown}"
            problem = None
        past.readiness = Readiness(shown, published.published_at, problem, shortfall)
