"""
One cycle: lock → inspect → poll → git-sync → snapshot → judge → publish → hooks.
"""

from __future__ import annotations

import os
import time

from git_sync_wrapper import publish, record
from git_sync_wrapper.engine import GitSyncFailed
from git_sync_wrapper.fallback import NoFallback, check_out, fall_back
from git_sync_wrapper.logins import REFUSALS
from git_sync_wrapper.publish import LOCK, Build, Volume
from git_sync_wrapper.reasons import REASONS
from git_sync_wrapper.record import NAMED_PATHS, Published
from git_sync_wrapper.sidecar import Parts
from sidecar_runtime.errors import GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Finding, Undecided
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Outcome, Readiness
from sidecar_runtime.logs import get_logger
from sidecar_runtime.printable import counted
from sidecar_runtime.volume.errors import explain_os_error
from sidecar_runtime.volume.lock import read_holder

# What is shown is inspected at every thirtieth poll, but at least this often.
INSPECTED_POLLS = 30
INSPECTED_SECONDS = 300.0
# How long to wait before the gate judges again while nothing is published yet.
ONCE_MORE_SECONDS = 1.0
LFS = "is a Git LFS pointer instead of the file: git-sync fetches no LFS content"

log = get_logger("cycle")


class GitSyncExitError(GaveUp):
    """
    The process exits when git-sync would, with git-sync's exit code: after too many failures before
    the first publication, or after a failed hook of a one-shot.
    """

    exit_code = 1


class Session:
    """
    State of the thread that runs cycles.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._volume: Volume | None = None
        self._arrived = ""
        """What git-sync brought last, or what this process found published."""
        self._refusal: RevisionRefused | None = None
        """Why the newest commit is not published."""
        self._why_nothing = ""
        self._judged: list[str] = []
        self._damage = ""
        self._doubt = ""
        self._inspected: tuple[float, bool] = (0.0, False)
        """When to inspect next, and whether this process had the lock at the last time."""

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The cycle failed; the published commit stays.
            GaveUp: Too many failures before the first publication, as in git-sync.
            CycleAbandoned: The fence was revoked.
        """
        past = self._parts.past
        if fence.is_asked_for and self._parts.gate is not None:
            self._parts.gate.ask_again()
        try:
            outcome = self._cycle(fence)
        except SidecarError as error:
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise
        if outcome.result != "waiting":
            past.failures = 0
            self._parts.hooks.clear_report()
        return outcome

    def close(self) -> None:
        """
        Close the volume.
        """
        if self._volume is not None:
            self._volume.close()
            self._volume = None

    # --- the story

    def _cycle(self, fence: Fence) -> Outcome:
        parts = self._parts
        volume = self._open(fence)
        if not self._lock(volume):
            return self._stand_by(volume, fence)
        parts.past.waits_for = ""
        published = self._restore(volume, fence)
        self._show(published)
        if published.is_elsewhere(parts.options):
            published = Published()  # nothing of this repository
        # A one-shot on an empty volume has nothing to compare with the remote's commit.
        is_all_new = parts.settings.one_shot and not os.path.exists(parts.engine.root)
        wanted = "" if is_all_new else self._poll(fence)
        if self._damage and wanted:
            self._bring_back(volume, published, fence)
        if not self._must_run(wanted, published):
            return self._rest(published, fence)
        started, is_first = time.monotonic(), not parts.past.has_synced
        outcome: Outcome = publish.make_room(
            lambda: self._bring(volume, published, fence),
            parts.engine.throw_away,
            volume,
            fence,
        )
        counters = parts.metrics.git_sync
        if outcome.result == "changed":
            volume.prune(outcome.revision, fence)
        if outcome.result == "changed" or (is_first and outcome.is_success):
            counters.count_fetch()
            counters.count_sync("success", time.monotonic() - started)
        else:
            counters.count_noop()
        return outcome

    def _bring(self, volume: Volume, published: Published, fence: Fence) -> Outcome:
        """
        Let git-sync bring what the ref names now, and publish it.
        """
        parts, started = self._parts, time.monotonic()
        try:
            commit = parts.engine.run(parts.logins, fence, answers=lambda: self._answers(fence))
        except SidecarError:
            parts.metrics.runs("error").inc()
            parts.metrics.git_sync.count_sync("error", time.monotonic() - started)
            raise
        parts.metrics.runs("success").inc()
        try:
            outcome = self._publish(commit, volume, published, fence)
        finally:
            parts.engine.clear()
        # Not the poll's answer: the ref may have moved since, or a replica was behind.
        self._arrived = parts.options.ref if parts.options.is_pinned else commit
        return outcome

    def _publish(self, commit: str, volume: Volume, published: Published, fence: Fence) -> Outcome:
        """
        Publish the commit that is checked out, if the gate accepts it.
        """
        options = self._parts.options
        is_same = commit == published.commit and published.is_made_as_asked(options)
        if is_same and not self._damage:
            if published.refused or published.shortfall(options):
                # Record that nothing newer is refused any more, and that this ref has it.
                volume.note(commit, published.facts, fence)
                self._show(volume.published())
            return self._confirm(commit, fence)
        self._judged.clear()
        build, refusal, undecided = self._judge(commit, volume, published, fence)
        if refusal is not None:
            volume.drop(build)
            if published.commit:
                # A tag may move: then the commit that it named before is the last good one.
                self._accept(refusal)
                volume.refuse(commit, fence)
                self._show(published)
                return self._refused(published)
            fallback, undecided = self._fall_back(commit, undecided, volume, refusal, fence)
            if fallback is None:
                return self._refused(published)
            build = fallback
        self._turn(build, volume, published, fence, fallback=commit if refusal else "")
        self._accept(refusal)
        self._show(volume.published())
        self._announce(build.commit, fence)
        if undecided is not None and not self._parts.settings.one_shot:
            raise undecided
        if refusal is None:
            return Outcome("changed", commit)
        return self._refused(volume.published())._replace(counts={"commits_published": 1})

    def _turn(
        self, build: Build, volume: Volume, published: Published, fence: Fence, *, fallback: str
    ) -> None:
        """
        Show a snapshot that is accepted, with its facts.
        """
        parts, commit = self._parts, build.commit
        try:
            parts.engine.check_whole(fence)  # after the links were made, so they are whole as well
            parts.hooks.prepublish(commit, build.path, fence)
            folder = parts.engine.worktree
            facts = record.describe(parts.git, folder, commit, published.commit, fence)
            if build.pointers:
                facts["lfs"] = build.pointers[:NAMED_PATHS]
                log.warning("lfs_pointers_published", revision=commit, paths=facts["lfs"])
            parts.engine.keep(commit)
            volume.show(build, facts, fence, fallback=fallback)
        except SidecarError:
            volume.drop(build)
            raise
        if "author" in facts:
            counts = {f"files_{kind}": facts[kind] for kind in record.KINDS if kind in facts}
            who = {"author": facts["author"], "subject": facts["subject"]}
            log.info("commit_published", revision=commit, **who, **counts, **facts.get("paths", {}))
        self._inspect_again()

    # --- the volume

    def _open(self, fence: Fence) -> Volume:
        """
        Return the open volume; one that was removed and created again is reopened.
        """
        if self._volume is not None and not self._volume.is_current():
            self.close()
        if self._volume is None:
            try:
                self._volume = Volume(self._parts.settings, self._parts.options)
            except SidecarError:
                self._show(record.look(self._parts.options), is_holder=False)
                raise
            self._arrived = ""
        with fence:
            return self._volume

    def _lock(self, volume: Volume) -> bool:
        """
        Whether this process has the lock. If it cannot tell, what is shown counts as for a standby.
        """
        try:
            return self._parts.past.lock.try_acquire(LOCK, volume.store)
        except OSError as error:
            published = volume.published()
            self._inspect(volume, published, is_holder=False)
            self._show(published, is_holder=False)
            raise explain_os_error(error, f"cannot lock {volume.root}") from error

    def _restore(self, volume: Volume, fence: Fence) -> Published:
        """
        Return what is published, restored as far as the remote is not needed: a removed link, and
        damaged files.
        """
        if self._arrived:
            published = volume.published_or_recorded(fence)
        else:
            published = volume.prepare(fence)
            self._arrived = published.commit
        if published.commit:
            volume.prune(published.commit, fence)
        if self._inspect(volume, published, is_asked_for=fence.is_asked_for):
            return published
        engine, options = self._parts.engine, self._parts.options
        if published.problem(options) or (published.shortfall(options) and not published.fallback):
            return published
        folder = self._parts.logins.folder
        if checkout := engine.restore(published.commit, folder, fence):
            try:
                self._replace(checkout, volume, published, fence)
            except SidecarError as error:  # the cycle goes on: a newer commit may be whole
                log.warning("restore_failed", revision=published.commit, error=error.message)
        return volume.published()

    def _bring_back(self, volume: Volume, published: Published, fence: Fence) -> None:
        """
        Let git-sync check out the published commit again, because it is damaged.
        """
        if not published.commit or not published.is_made_as_asked(self._parts.options):
            return
        engine = self._parts.engine
        try:
            check_out(engine, self._parts.logins, published.commit, fence)
            self._replace(engine.worktree, volume, published, fence)
        except SidecarError as error:
            log.warning("restore_failed", revision=published.commit, error=error.message)

    def _replace(self, checkout: str, volume: Volume, published: Published, fence: Fence) -> None:
        """
        Replace the published commit's damaged snapshot, and drop those that share its damage.
        """
        commit = published.commit
        volume.drop_damaged(commit, fence)
        build = volume.build(commit, checkout, fence)
        volume.show(build, published.facts, fence, fallback=published.fallback)
        if published.refused:
            volume.refuse(published.refused, fence)
        self._parts.engine.clear()
        paths = build.changed[:NAMED_PATHS]
        log.warning("damage_repaired", revision=commit, files=len(build.changed), paths=paths)
        self._inspect_again()
        self._show(volume.published())

    def _inspect(
        self,
        volume: Volume,
        published: Published,
        *,
        is_holder: bool = True,
        is_asked_for: bool = False,
    ) -> bool:
        """
        Inspect what is shown, if that is due; return whether it is whole.

        A standby without a list of the files is ready nevertheless: an older version writes another
        list, and a rolling update ends that version only once the standby is ready.
        """
        due_at, was_holder = self._inspected
        is_early = time.monotonic() < due_at and is_holder == was_holder and not is_asked_for
        if not published.commit or (is_early and not self._damage):
            return not self._damage
        interval = self._parts.settings.interval_seconds
        seconds = min(INSPECTED_SECONDS, INSPECTED_POLLS * interval)
        self._inspected = time.monotonic() + seconds, is_holder
        if not is_holder:
            volume.reload()
        damaged = volume.damage(published.commit)
        before, self._damage, self._doubt = self._damage, "", ""
        if damaged is None:
            said = f"{published.commit} cannot be checked: the list of its files is missing"
            self._damage, self._doubt = (said, "") if is_holder else ("", said)
        elif damaged:
            files = counted(len(damaged), "file")
            self._damage = (
                f"damaged or missing in {published.commit}: {files}, such as {damaged[0]}"
            )
            if not before:
                paths = damaged[:NAMED_PATHS]
                log.warning(
                    "damage_found", revision=published.commit, files=len(damaged), paths=paths
                )
        return not self._damage

    def _inspect_again(self) -> None:
        """
        Note that what is shown is new, and whole.
        """
        self._damage = self._doubt = ""
        self._inspected = 0.0, True

    def _stand_by(self, volume: Volume, fence: Fence) -> Outcome:
        """
        Wait while another process holds the lock. A one-shot ends once the holder has published the
        remote's commit, or an older one because its gate refuses that commit.
        """
        self._arrived = ""
        published = volume.published()
        is_whole = self._inspect(
            volume, published, is_holder=False, is_asked_for=fence.is_asked_for
        )
        self._show(published, is_holder=False)
        problem = None
        if self._parts.settings.one_shot and is_whole and published.commit:
            try:
                wanted = self._poll(fence)
            except SidecarError as error:
                problem, wanted = error, ""
            good = {published.commit, published.ref, published.fallback}
            if not self._parts.options.is_pinned:
                good.add(published.refused)
            if wanted and wanted in good:
                return self._confirm(published.commit, fence)
        holder = read_holder(LOCK, volume.store)
        who = f"pid {holder.get('pid')} on {holder.get('host')}" if holder else "unknown"
        if self._parts.past.waits_for != who:
            log.info("target_waiting", root=volume.root, holder=who)
        self._parts.past.waits_for = who
        return Outcome("waiting", counts={"holder": who}, problem=problem)

    # --- the remote

    def _poll(self, fence: Fence) -> str:
        """
        Return the remote's commit; empty if only git-sync can ask for it: of a GitHub App, it alone
        gets a new token.
        """
        parts = self._parts
        if parts.options.is_pinned:
            return parts.options.ref
        is_again = False
        while True:
            try:
                wanted = parts.git.poll(parts.logins.prepare(fence), fence)
            except SidecarError as error:
                if parts.options.is_github_app and error.reason in REFUSALS:
                    return ""
                if not is_again and parts.logins.renew(error):
                    is_again = True
                    continue
                parts.metrics.polls("error").inc()
                raise
            parts.metrics.polls("same" if wanted == self._arrived else "new").inc()
            return wanted

    def _answers(self, fence: Fence) -> bool:
        """
        Whether the remote answers, whatever it says of the ref.
        """
        try:
            self._parts.git.poll(self._parts.logins.prepare(fence), fence)
        except SidecarError as error:
            return error.reason == "ref_not_found"
        return True

    def _must_run(self, wanted: str, published: Published) -> bool:
        """
        Whether git-sync must run.
        """
        if wanted != self._arrived or self._damage:
            return True
        if self._is_refused(published):
            gate = self._parts.gate  # otherwise it would only be refused again
            return gate is not None and any(gate.is_due(commit) for commit in self._judged)
        options = self._parts.options
        return not published.commit or bool(
            published.refused or published.problem(options) or published.shortfall(options)
        )

    def _is_refused(self, published: Published) -> bool:
        """
        Whether the gate refuses the newest commit; the noted refusal may concern an older one.
        """
        return self._refusal is not None and published.commit != self._arrived

    # --- the gate

    def _judge(
        self, commit: str, volume: Volume, published: Published, fence: Fence
    ) -> tuple[Build, RevisionRefused | None, Undecided | None]:
        """
        Make a snapshot of the checkout, and let the gate judge it.

        While nothing is published, and in a one-shot, which must end, repeatedly missing verdicts
        count as a refusal; it is returned with the error, so that the gate judges again later.

        Raises:
            Undecided: There is no verdict, and consumers have an older commit in the meantime.
            CycleAbandoned: The fence was revoked.
        """
        build = volume.build(commit, self._parts.engine.worktree, fence)
        gate = self._parts.gate
        if gate is None:
            return build, None, None
        self._judged.append(commit)
        while True:
            try:
                refusal = gate.judge(commit, build.path, build.changed, fence)
            except Undecided as error:
                with fence:
                    fence.blame = error
                if published.commit and not self._parts.settings.one_shot:
                    volume.drop(build)
                    raise
                if silence := gate.silence(commit, error):
                    return build, silence, error
                # Retry within this cycle: like git-sync, the process may exit at its first failure.
                fence.wait(ONCE_MORE_SECONDS)
            except BaseException:
                volume.drop(build)
                raise
            else:
                with fence:
                    fence.blame = None
                return build, refusal and _with_pointers(refusal, build), None

    def _fall_back(
        self,
        commit: str,
        undecided: Undecided | None,
        volume: Volume,
        refusal: RevisionRefused,
        fence: Fence,
    ) -> tuple[Build | None, Undecided | None]:
        """
        Return the newest earlier commit that the gate accepts, and the last missing verdict.

        Raises:
            Undecided: There is none, and some commit got no verdict.
        """
        silences = [undecided]

        def accept(older: str) -> Build | None:
            build, refused, no_verdict = self._judge(older, volume, Published(), fence)
            silences.append(no_verdict)
            if refused is None:
                return build
            volume.drop(build)
            return None

        parts = self._parts
        try:
            build = fall_back(parts.engine, parts.logins, commit, accept, fence)
        except NoFallback as why:
            self._accept(refusal, str(why))
            self._show(Published())
            build = None
        missing = next(filter(None, silences), None)
        if build is None and missing is not None:
            raise missing
        return build, missing

    def _accept(self, refusal: RevisionRefused | None, why_nothing: str = "") -> None:
        """
        Note the gate's refusal of the newest commit; None if it accepts it.

        Args:
            why_nothing: Why no fallback is published.
        """
        self._refusal = refusal
        self._why_nothing = f": the gate refuses {refusal.revision}{why_nothing}" if refusal else ""
        if self._parts.gate is not None:
            self._parts.gate.rest(is_refused=refusal is not None)

    # --- the end of a cycle

    def _rest(self, published: Published, fence: Fence) -> Outcome:
        """
        Finish a cycle without a new commit.
        """
        self._parts.metrics.git_sync.count_noop()
        if self._is_refused(published):
            return self._refused(published)
        return self._confirm(published.commit, fence)

    def _confirm(self, commit: str, fence: Fence) -> Outcome:
        """
        Confirm that the published commit is the remote's; the first time this counts as a change.
        """
        if self._refusal is not None:
            self._accept(None)
            self._show(self._volume.published() if self._volume else Published())
        if not self._parts.past.has_synced:
            self._announce(commit, fence)
        return Outcome("unchanged", commit)

    def _refused(self, published: Published) -> Outcome:
        """
        Return the outcome of a refusal; unless the ref is pinned, a one-shot may still succeed.
        """
        is_enough = bool(published.commit) and not self._parts.options.is_pinned
        return Outcome("refused", published.commit, problem=self._refusal, is_enough=is_enough)

    def _announce(self, commit: str, fence: Fence) -> None:
        """
        Start the hooks; a one-shot waits for them.

        Raises:
            GaveUp: A hook failed in a one-shot, as in git-sync.
        """
        self._parts.past.has_synced = True
        hooks = self._parts.hooks
        if not self._parts.settings.one_shot:
            hooks.announce(commit)
        elif problem := hooks.announce_once(commit, fence):
            advice = REASONS["hook_failed"].advice
            raise GitSyncExitError("hook_failed", f"{commit} is published, but {problem}", advice)

    def _failed(self, error: SidecarError) -> SidecarError:
        """
        Note a failure; return the error that ends the cycle: before the first publication, the
        process exits after as many failures as git-sync would.
        """
        past, options = self._parts.past, self._parts.options
        past.failures += 1
        said = error.report if isinstance(error, GitSyncFailed) else ""
        self._parts.hooks.report(error, past.failures, said)
        is_published = bool(past.readiness.revision) and not self._parts.settings.one_shot
        if isinstance(error, GaveUp) or is_published:
            return error
        limit = options.init_max_failures
        limit = options.max_failures if limit is None else limit
        if 0 <= limit <= past.failures:
            return GitSyncExitError(error.reason, error.message, error.advice)
        error.retry_within_seconds = options.init_period or options.period
        return error

    def _show(self, published: Published, *, is_holder: bool = True) -> None:
        """
        Say what /readyz and the page answer from now on.

        Args:
            is_holder: Whether this process can change what is published. A standby is ready for
                another commit as well: a rolling update ends the holder only once it is ready.
        """
        past, options, refusal = self._parts.past, self._parts.options, self._refusal
        self._parts.metrics.gate.fallback.set(bool(published.fallback))
        self._parts.metrics.last_publish.set(published.published_at or 0)
        refused = {"refused": refusal.facts()} if refusal is not None else {}
        past.details = record.details(published.facts) | refused
        if not published.commit:
            said = f"nothing is published yet{self._why_nothing}"
            past.readiness = Readiness(False, problem=said)
            return
        problem, shortfall = published.problem(options), published.shortfall(options)
        if not is_holder:
            problem, shortfall = "", problem or shortfall
        if options.is_pinned and refusal is not None:
            problem = f"the gate refuses {refusal.revision}, which GITSYNC_REF pins"
        problem = self._damage or problem
        pointers = [f"{path} {LFS}" for path in published.facts.get("lfs", ())[:1]]
        shortfall = "; ".join(filter(None, (self._doubt or shortfall, *pointers)))
        commit, at = published.commit, published.published_at
        past.readiness = Readiness(not problem, commit, at, problem, shortfall)


def _with_pointers(refusal: RevisionRefused, build: Build) -> RevisionRefused:
    """
    Return a refusal that names LFS pointers as what they are.
    """
    named = refusal.paths.intersection(build.pointers)
    if not named:
        return refusal
    findings = [
        Finding(found.path, None, LFS) if found.path in named else found
        for found in refusal.findings
    ]
    return RevisionRefused(refusal.revision, findings)
