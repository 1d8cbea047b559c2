"""
One cycle: lock → poll → git-sync → publish.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from git_sync_wrapper.context import Context, GitSyncExitError
from git_sync_wrapper.hooks.runners import PrePublishError
from git_sync_wrapper.inspection import Inspection
from git_sync_wrapper.published.difference import find_difference, is_elsewhere
from git_sync_wrapper.published.record import Published, look
from git_sync_wrapper.published.volume import LOCK, Volume
from git_sync_wrapper.publisher import Publisher
from git_sync_wrapper.room import with_room
from sidecar_runtime.errors import GaveUp, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Undecided
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explained
from sidecar_runtime.volume.lock import read_holder

if TYPE_CHECKING:
    from git_sync_wrapper.asking.asking import Asking

log = get_logger("cycle")


# The failures of git-sync that a failed poll explains better, and the poll's reasons; empty: any.
# Of a GitHub App, only git-sync has the token. A login that another server asks for is not wrong.
EXPLAINED_BY: dict[str, set[str]] = {
    "git_sync_failed": set(),
    "credentials_refused": {"redirect_refused"},
    "login_missing": {"redirect_refused"},
}


class Session:
    """
    State of the thread that runs cycles: the open volume and the result of the last poll.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._options = context.options
        self._publisher = Publisher(context)
        self._inspection = Inspection(context)
        self._asking: Asking | None = None
        if context.asked is not None:
            from git_sync_wrapper.asking.asking import Asking  # noqa: PLC0415 - no server in one-shots

            self._asking = Asking(context, context.asked)
        self._volume: Volume | None = None
        self._settled_at = ""
        """The commit of git-sync's last successful run; before the first, the published commit."""
        self._is_waiting = False
        self._has_polled = False
        """Whether the remote answered a poll in this cycle."""

    def cycle(self, fence: Fence) -> Outcome:
        """
        Run one cycle.

        Raises:
            SidecarError: The cycle failed; the published commit stays.
            GaveUp: Too many failures before the first publication, as in git-sync.
            CycleAbandoned: The fence was revoked.
        """
        if fence.is_asked_for and self._context.gate is not None:
            self._context.gate.ask_again()
        self._context.engine.access.start_over()
        try:
            outcome = self._run_and_answer(fence)
        except SidecarError as error:
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise
        if outcome.result != "waiting":
            self._context.past.failures = 0
            self._context.report.remove()
        return outcome

    def close(self) -> None:
        """
        Close the volume and all connections.
        """
        if self._asking is not None:
            self._asking.close()
        if self._volume is not None:
            self._volume.close()
            self._volume = None
        self._context.poller.close()

    def _run_and_answer(self, fence: Fence) -> Outcome:
        """
        Run, and then add the commits that consumers requested, unless the remote fails.
        """
        asking, began = self._asking, time.monotonic()
        self._has_polled = False
        if asking is None:
            return self._run(fence)

        def bring(began: float) -> None:
            asking.bring(fence, began=began, is_refused=self._publisher.refusal is not None)

        try:
            outcome = self._run(fence)
        except SidecarError as error:
            # Gate, hook or checkout of the newest commit failed; older ones may be intact.
            if self._has_polled or isinstance(error, (Undecided, PrePublishError)):
                bring(time.monotonic())  # the next cycle may take as long as this one
            else:
                asking.note_outage(error)
            raise
        bring(began)
        return outcome

    def _run(self, fence: Fence) -> Outcome:
        volume = self._open()
        with explained(f"cannot lock {volume.root}"):  # for example, a file system without locks
            is_holder = self._context.past.lock.try_acquire(LOCK, volume.store)
        if self._asking is not None:
            self._asking.follow(volume if is_holder else None, fence)
        if not is_holder:
            published = volume.published()
            self._inspection.look_when_due(published.commit, volume, fence, is_holder=False)
            self._context.note(published, is_holder=False)
            problem = None
            if self._settings.one_shot and self._inspection.is_whole:
                wanted, problem = self._poll(fence)
                if self._is_newest(wanted, published):
                    return self._publisher.confirm(published.commit, fence)
            return self._wait(volume, problem)
        self._is_waiting = False
        published = self._restore_link(volume, fence)
        if published.commit:
            volume.prune(published.commit, fence)
        self._inspection.look_when_due(published.commit, volume, fence)
        self._context.note(published)
        if is_elsewhere(published, self._options):
            published = Published()  # nothing of this repository
        # A one-shot on an empty volume has no commit to compare with the remote's.
        is_all_new = self._settings.one_shot and not (self._settled_at or self._options.is_pinned)
        wanted, problem = ("", None) if is_all_new else self._poll(fence)
        if not self._must_run(wanted, published, fence):
            return self._rest(published, fence)
        started, is_first = time.monotonic(), not self._context.past.has_synced

        def problem_of_poll() -> SidecarError | None:
            return self._poll(fence)[1] if is_all_new else problem

        def bring() -> tuple[str, Outcome]:
            commit = self._sync(fence, problem_of_poll)
            is_whole = self._inspection.is_whole
            return commit, self._publisher.publish(
                commit, published, volume, fence, is_whole=is_whole
            )

        is_new = is_all_new or wanted not in ("", self._settled_at)
        root = self._context.engine.root
        commit, outcome = with_room(bring, root, volume, fence, is_new=is_new)
        self._inspection.note_whole()
        # Not the poll's result: another replica of the server may have been behind.
        self._settled_at = self._options.ref if self._options.is_pinned else commit
        counters = self._context.metrics.git_sync
        if outcome.result == "changed":
            volume.prune(commit, fence)
        if outcome.result == "changed" or (is_first and outcome.is_success):
            counters.count_fetch()
            counters.count_sync("success", time.monotonic() - started)
        else:
            counters.count_noop()
        return outcome

    def _open(self) -> Volume:
        """
        Return the open volume; one that was removed and created again is reopened.
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
                retain_bytes=self._settings.retain_bytes,
                asked_count=self._settings.keep_requested,
                asked_bytes=self._settings.keep_requested_bytes,
                fsync=self._settings.fsync,
                reads=not self._settings.one_shot,
            )
            self._settled_at = ""
        return self._volume

    def _restore_link(self, volume: Volume, fence: Fence) -> Published:
        """
        Return what is published, with the link restored if it was removed.
        """
        if not self._settled_at:
            volume.prepare()
        published = volume.published()
        if not published.commit and (last := volume.recorded()).commit:
            volume.turn_back(last.commit, fence)
            log.warning("link_restored", revision=last.commit)
            published = volume.published()
        if not self._settled_at:
            self._settled_at = published.commit
        return published

    def _is_newest(self, wanted: str, published: Published) -> bool:
        """
        Whether the lock holder has published the remote's commit, or an older one because its gate
        refuses that commit.
        """
        if not wanted or not published.commit:
            return False
        is_refused = wanted == published.refused and not self._options.is_pinned
        return is_refused or wanted in (published.commit, published.ref, published.fallback)

    def _wait(self, volume: Volume, problem: SidecarError | None) -> Outcome:
        """
        Stand by while another process holds the lock.

        Args:
            problem: Why this process cannot tell whether the published commit is the newest.
        """
        holder = read_holder(LOCK, volume.store)
        who = f"pid {holder.get('pid')} on {holder.get('host')}" if holder else "unknown"
        if not self._is_waiting:
            log.info("target_waiting", root=volume.root, holder=who)
        self._is_waiting = True
        return Outcome("waiting", counts={"holder": who}, problem=problem)

    def _poll(self, fence: Fence) -> tuple[str, SidecarError | None]:
        """
        Return the remote's commit; if the poll fails, an empty text and the error.
        """
        if self._options.is_pinned:
            return self._options.ref, None
        try:
            wanted = self._context.poller.commit(fence)
        except SidecarError as error:
            self._context.metrics.polls("error").inc()
            log.debug("poll_failed", reason=error.reason, error=error.message)
            return "", error
        self._has_polled = True
        self._context.metrics.polls("same" if wanted == self._settled_at else "new").inc()
        return wanted, None

    def _must_run(self, wanted: str, published: Published, fence: Fence) -> bool:
        """
        Return whether git-sync must run.
        """
        if fence.is_asked_for or wanted != self._settled_at or not self._inspection.is_whole:
            return True
        if self._is_refused(published):
            return self._publisher.is_due  # otherwise it would only be refused again
        # The record must say that nothing newer is refused any more.
        is_settled = published.commit and not (published.fallback or published.refused)
        return not is_settled or any(find_difference(published, self._options))

    def _is_refused(self, published: Published) -> bool:
        """
        Whether the gate refuses the newest commit; the noted refusal may concern an older one.
        """
        return self._publisher.refusal is not None and published.commit != self._settled_at

    def _rest(self, published: Published, fence: Fence) -> Outcome:
        """
        Finish a cycle without a new commit.
        """
        self._context.metrics.git_sync.count_noop()
        if self._is_refused(published):
            return self._publisher.refused(published)
        return self._publisher.confirm(published.commit, fence)

    def _sync(self, fence: Fence, problem_of_poll: Callable[[], SidecarError | None]) -> str:
        """
        Run git-sync; return the commit.

        Args:
            problem_of_poll: Returns the error of a poll, which is more exact than git's message.
        """
        started = time.monotonic()
        metrics = self._context.metrics
        try:
            commit = self._run_engine(fence)
        except SidecarError as error:
            metrics.runs("error").inc()
            metrics.git_sync.count_sync("error", time.monotonic() - started)
            if not self._options.is_github_app and error.reason in EXPLAINED_BY:
                problem, reasons = problem_of_poll(), EXPLAINED_BY[error.reason]
                if problem is not None and problem.reason in (reasons or {problem.reason}):
                    raise problem from error
            raise
        metrics.runs("success").inc()
        return commit

    def _run_engine(self, fence: Fence) -> str:
        """
        Run git-sync; once more if a secret that looks like base64 was refused unchanged. A one-shot
        ends with its first failure, and polls, which would have noticed, are not its first request.
        """
        engine = self._context.engine
        access, was_decoding = engine.access, engine.access.is_decoding
        try:
            return engine.run(fence)
        except SidecarError as error:
            if error.reason != "credentials_refused" or was_decoding:
                raise
            if not access.is_decoding:  # git reports a 401, but no 403
                access.refused(self._options.repo)
            if not access.is_decoding:
                raise
        return engine.run(fence)

    def _failed(self, error: SidecarError) -> SidecarError:
        """
        Note a failure; return the error that ends the cycle: before the first publication, the
        process exits after as many failures as git-sync would.
        """
        context = self._context
        context.past.failures += 1
        context.report.write(error, context.past.failures)
        is_published = bool(look(self._options).commit) and not self._settings.one_shot
        if isinstance(error, GaveUp) or is_published:
            return error
        limit = self._options.failures_before_first
        if 0 <= limit <= context.past.failures:
            return GitSyncExitError(error.reason, error.message, error.advice)
        error.retry_within_seconds = self._options.init_period_seconds
        return error
