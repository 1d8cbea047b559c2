"""
One cycle: lock → poll → git-sync → gate → snapshot → link → hooks.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from git_sync_wrapper.board import Board
from git_sync_wrapper.engine import Engine
from git_sync_wrapper.hooks import Hooks
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.options import Options
from git_sync_wrapper.refs import Poller
from git_sync_wrapper.report import ErrorFile
from git_sync_wrapper.settings import Settings
from git_sync_wrapper.tree import changed_files, real_files
from git_sync_wrapper.volume import LOCK, Published, Volume, look
from sidecar_runtime.errors import GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate import Gate, RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.publish import TargetLock, read_holder

log = get_logger("cycle")


class GitSyncExitError(GaveUp):
    """
    The process ends where git-sync would, with its code: too many failures before anything was
    published, or a hook of a one-shot that failed.
    """

    exit_code = 1


@dataclass(slots=True)
class Past:
    """
    What outlives a session.

    Args:
        failures: In a row, as git-sync counts them.
        has_synced: Whether a cycle of this process has found the newest commit published.
    """

    lock: TargetLock
    failures: int = 0
    has_synced: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """
    What a session works with.
    """

    settings: Settings
    options: Options
    environ: Mapping[str, str]
    engine: Engine
    poller: Poller
    gate: Gate | None
    hooks: Hooks
    metrics: WrapperMetrics
    board: Board
    report: ErrorFile
    past: Past


class Session:
    """
    What belongs to the thread that runs cycles: the open volume, what the last poll said.
    """

    can_wait_for_news = False

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._options = parts.options
        told = self._options
        facts = [told.repo, told.depth, told.filter, told.submodules, told.group_write]
        self._digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        self._volume: Volume | None = None
        self._settled_at = ""
        """The commit that git-sync found when it last ran well, or that was published."""
        self._refusal: RevisionRefused | None = None
        self._is_waiting = False
        self._rehearsed = ""

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: What failed; what was published before stays.
            GaveUp: As git-sync would, before anything is published.
            CycleAbandoned: The fence was revoked.
        """
        try:
            outcome = self._run(fence)
        except SidecarError as error:
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise
        if outcome.result != "waiting":
            self._parts.past.failures = 0
            self._parts.report.remove()
        return outcome

    def glance(self) -> bool:
        """
        Whether the remote still has what the link shows, without a cycle.
        """
        volume = self._volume
        if volume is None or not self._settled_at:
            return False
        try:
            is_calm = (
                volume.is_current()
                and volume.published().commit == self._settled_at
                and (
                    self._options.is_pinned
                    or self._parts.poller.commit(Fence()) == self._settled_at
                )
            )
        except (SidecarError, OSError):
            return False  # the cycle will say why
        if is_calm:
            self._parts.metrics.polls("same").inc()
            self._parts.metrics.git_sync.count_noop()
        return is_calm

    def close(self) -> None:
        """
        Close what is open.
        """
        if self._volume is not None:
            self._volume.close()
            self._volume = None
        self._parts.poller.close()

    def _run(self, fence: Fence) -> Outcome:
        if self._settings.dry_run:
            return self._rehearse(fence)
        volume = self._open()
        if not self._parts.past.lock.try_acquire(LOCK, volume.store):
            self._parts.board.publish(volume.published())
            return self._wait(volume)
        self._is_waiting = False
        published = self._mend(volume, fence)
        wanted, problem = self._poll(fence)
        if not self._must_run(wanted, published, fence):
            return self._rest(published, fence)
        started, is_first = time.monotonic(), not self._parts.past.has_synced
        commit = self._sync(problem, fence)
        outcome = self._publish(commit, published, volume, fence)
        # Not what the poll said: another replica of the server may have been behind.
        self._settled_at = self._options.ref if self._options.is_pinned else commit
        counters = self._parts.metrics.git_sync
        if outcome.result == "changed" or (is_first and outcome.is_success):
            counters.count_fetch()
            counters.count_sync("success", time.monotonic() - started)
        else:
            counters.count_noop()
        return outcome

    def _rehearse(self, fence: Fence) -> Outcome:
        """
        Say once what would be published (``GIT_SYNC_WRAPPER_DRY_RUN``); git-sync is not run.
        """
        published = look(self._options)
        self._parts.board.publish(published)
        wanted, problem = self._poll(fence)
        if problem is not None:
            raise problem
        if wanted not in (published.commit, self._rehearsed):
            self._rehearsed = wanted
            log.info("plan_made", revision=wanted, published=published.commit)
        return Outcome("unchanged", published.commit)

    def _open(self) -> Volume:
        """
        Return the open volume; one that somebody removed and made anew is opened anew.
        """
        if self._volume is not None and not self._volume.is_current():
            self.close()
        if self._volume is None:
            self._volume = Volume(
                self._options,
                retain_count=self._settings.retain_count,
                retain_seconds=max(
                    self._settings.retain_seconds, self._options.stale_worktree_timeout_seconds
                ),
            )
            self._settled_at = ""
        return self._volume

    def _mend(self, volume: Volume, fence: Fence) -> Published:
        """
        Return what is published, with the link turned back if somebody has removed it.
        """
        if not self._settled_at:
            volume.prepare()
        published = volume.published()
        if not published.commit and (commit := volume.recorded()):
            volume.show(commit, "", fence)
            log.warning("link_restored", revision=commit)
            published = volume.published()
        if not self._settled_at:
            self._settled_at = published.commit
        self._parts.board.publish(published)
        return published

    def _wait(self, volume: Volume) -> Outcome:
        """
        Stand by while another process holds the root.
        """
        holder = read_holder(LOCK, volume.store)
        who = f"pid {holder.get('pid')} on {holder.get('host')}" if holder else "unknown"
        if not self._is_waiting:
            log.info("target_waiting", root=volume.root, holder=who)
        self._is_waiting = True
        return Outcome("waiting", counts={"holder": who})

    def _poll(self, fence: Fence) -> tuple[str, SidecarError | None]:
        """
        Return what the remote has; empty where only git-sync can tell, with the reason.
        """
        if self._options.is_pinned:
            return self._options.ref, None
        try:
            wanted = self._parts.poller.commit(fence)
        except SidecarError as error:
            self._parts.metrics.polls("error").inc()
            log.debug("poll_failed", reason=error.reason, error=error.message)
            return "", error
        self._parts.metrics.polls("same" if wanted == self._settled_at else "new").inc()
        return wanted, None

    def _must_run(self, wanted: str, published: Published, fence: Fence) -> bool:
        """
        Tell whether git-sync is to run.
        """
        if fence.is_asked_for or wanted != self._settled_at:
            return True
        if self._refusal is not None:
            return False  # it would be refused again
        return not published.commit or published.made_by not in ("", self._made_by())

    def _rest(self, published: Published, fence: Fence) -> Outcome:
        """
        Nothing is new.
        """
        self._parts.metrics.git_sync.count_noop()
        if self._refusal is not None:
            return Outcome("refused", published.commit, refusal=self._refusal)
        return self._unchanged(published.commit, fence)

    def _unchanged(self, commit: str, fence: Fence) -> Outcome:
        """
        What is published is what the remote has; the first time that counts as a change.
        """
        if not self._parts.past.has_synced:
            self._announce(commit, fence)
        return Outcome("unchanged", commit)

    def _sync(self, problem: SidecarError | None, fence: Fence) -> str:
        """
        Let git-sync do its work; return the commit.

        Args:
            problem: Why the remote could not be polled; it names the cause better than git does.
        """
        started = time.monotonic()
        metrics = self._parts.metrics
        try:
            commit = self._parts.engine.run(fence)
        except SidecarError as error:
            metrics.runs("error").inc()
            metrics.git_sync.count_sync("error", time.monotonic() - started)
            if problem is not None and error.reason == "git_sync_failed":
                raise problem from error
            raise
        metrics.runs("success").inc()
        return commit

    def _publish(self, commit: str, published: Published, volume: Volume, fence: Fence) -> Outcome:
        """
        Let consumers see a commit, if the gate does.
        """
        parts, made_by = self._parts, self._made_by()
        if commit == published.commit and published.made_by in ("", made_by):
            self._accept(None)
            return self._unchanged(commit, fence)
        worktree = parts.engine.worktree()
        if refusal := self._judge(commit, published, worktree, fence):
            self._accept(refusal)
            return Outcome("refused", published.commit, refusal=refusal)
        volume.add(commit, worktree, fence)
        parts.hooks.prepublish(commit, fence)
        volume.show(commit, made_by, fence)
        self._accept(None)
        parts.board.publish(volume.published())
        self._announce(commit, fence)
        volume.prune(commit, fence)
        return Outcome("changed", commit)

    def _judge(
        self, commit: str, published: Published, worktree: str, fence: Fence
    ) -> RevisionRefused | None:
        gate = self._parts.gate
        if gate is None:
            return None
        changed = changed_files(
            self._options.git, self._parts.environ, worktree, published.commit, commit
        )
        if self._settings.gate == "syntax":  # it opens no links: they may lead anywhere
            changed = real_files(worktree, changed)
        return gate.judge(commit, worktree, changed, fence)

    def _accept(self, refusal: RevisionRefused | None) -> None:
        """
        Note what the gate says of the newest commit; nothing where it lets it pass.
        """
        self._refusal = refusal
        self._parts.board.refuse(refusal)
        if refusal is None and self._parts.gate is not None:
            self._parts.gate.rest()

    def _announce(self, commit: str, fence: Fence) -> None:
        """
        Let the hooks know; a one-shot waits for them.

        Raises:
            GaveUp: One of them failed in a one-shot, as in git-sync.
        """
        self._parts.past.has_synced = True
        hooks = self._parts.hooks
        if not self._settings.one_shot:
            hooks.announce(commit)
        elif problem := hooks.announce_once(commit, fence):
            raise GitSyncExitError(
                "hook_failed",
                f"{commit} is published, but {problem}",
                "A one-shot ends with its hooks; look at what the hook says.",
            )

    def _made_by(self) -> str:
        """
        Return a digest of the settings that decide about the files of a commit, and its history.
        """
        options = self._options
        if not options.sparse_checkout_file:
            return self._digest
        try:
            with open(options.sparse_checkout_file, "rb") as file:
                sparse = file.read()
        except OSError:
            sparse = b""  # git-sync will say what is wrong with it
        return hashlib.sha256(self._digest.encode() + sparse).hexdigest()[:16]

    def _failed(self, error: SidecarError) -> SidecarError:
        """
        Note a failure; return what ends the cycle: before anything is published, as git-sync.
        """
        parts = self._parts
        parts.past.failures += 1
        parts.report.write(error, parts.past.failures)
        if isinstance(error, GaveUp) or (parts.board.is_published and not self._settings.one_shot):
            return error
        limit = self._options.failures_before_first
        if 0 <= limit <= parts.past.failures:
            return GitSyncExitError(error.reason, error.message, error.advice)
        error.retry_within_seconds = self._options.init_period_seconds
        return error
