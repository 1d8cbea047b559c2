"""
Publish a commit that git-sync has checked out: gate → snapshot → link → hooks.
"""

from __future__ import annotations

from git_sync_wrapper.context import Context, GitSyncExitError
from git_sync_wrapper.fallback import NoFallback, check_out, fall_back
from git_sync_wrapper.published.commit import describe
from git_sync_wrapper.published.difference import find_difference, is_made_as_asked, made_by
from git_sync_wrapper.published.record import Published
from git_sync_wrapper.published.tree import changed_files, links_to
from git_sync_wrapper.published.volume import Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Undecided
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explained

ONCE_MORE_SECONDS = 1.0
"""How long to wait before the gate judges again while nothing is published yet."""

log = get_logger("publisher")


class Publisher:
    """
    Publishes commits, and remembers which one the gate refuses.

    Attributes:
        refusal: The refusal of the newest commit; None if the gate accepts it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._options = context.options
        self.refusal: RevisionRefused | None = None
        self._asked: list[str] = []
        """The commits that the gate judged: the newest, and candidates for a fallback."""

    @property
    def is_due(self) -> bool:
        """
        Whether the gate should judge a refused commit again.
        """
        gate = self._context.gate
        return gate is not None and any(gate.is_due(commit) for commit in self._asked)

    def confirm(self, commit: str, fence: Fence) -> Outcome:
        """
        Confirm that the published commit is the remote's; the first time this counts as a change.
        """
        self._accept(None)
        if not self._context.past.has_synced:
            self._announce(commit, fence)
        return Outcome("unchanged", commit)

    def publish(
        self,
        commit: str,
        published: Published,
        volume: Volume,
        fence: Fence,
        *,
        is_whole: bool = True,
    ) -> Outcome:
        """
        Publish a commit if the gate accepts it.

        Args:
            is_whole: Whether the published files are known to be undamaged.
        """
        context, options = self._context, self._options
        if commit == published.commit and is_made_as_asked(published, options):
            if not is_whole:
                volume.repair(commit, context.engine.worktree(), fence)
            context.engine.keep(commit, fence)
            is_outdated = published.fallback or published.refused
            if is_outdated or find_difference(published, options).shortfall:
                # Record that nothing newer is refused any more, and that this ref has it.
                volume.show(commit, made_by(options), fence, facts=published.facts)
                context.note(volume.published())
            return self.confirm(commit, fence)
        self._asked.clear()
        refusal, undecided = self._ask(commit, published, volume, fence)
        shown = commit
        if refusal is not None:
            if published.commit:
                if not is_whole:
                    check_out(context.engine, published.commit, fence)
                    volume.repair(published.commit, context.engine.worktree(), fence)
                # A tag may move: then the commit that it named before is the last good one.
                self._accept(refusal)
                volume.refuse(commit, fence)
                return self.refused(published)

            def judge(older: str) -> RevisionRefused | None:
                nonlocal undecided
                found, no_verdict = self._ask(older, published, volume, fence)
                undecided = undecided or no_verdict
                return found

            try:
                shown = fall_back(context.engine, commit, judge, fence)
            except NoFallback as why:
                self._accept(refusal, str(why))
                if undecided is not None:
                    raise undecided from None
                return self.refused(published)
        volume.add(shown, context.engine.worktree(), fence)
        try:
            context.engine.check_whole(fence)  # after the copy, so the copy is whole as well
            context.hooks.prepublish(shown, fence)
        except SidecarError:
            volume.drop_unshown(fence)
            raise
        # Requested commits were checked out with the same old settings.
        if not is_made_as_asked(volume.published(), options):
            volume.drop_asked(fence)
        facts = describe(
            options.git,
            context.environ,
            context.engine.worktree(),
            shown,
            published.commit,
        )
        fallback = "" if shown == commit else commit
        context.engine.keep(shown, fence)
        volume.show(shown, made_by(options), fence, fallback=fallback, facts=facts)
        if facts.committed_at:
            log.info(
                "commit_published",
                revision=shown,
                author=facts.author,
                subject=facts.subject,
                **{f"files_{kind}": count for kind, count in facts.counts.items()},
                **facts.paths,
            )
        self._accept(refusal)
        context.note(volume.published())
        self._announce(shown, fence)
        if undecided is not None and not self._settings.one_shot:
            raise undecided
        if refusal is None:
            return Outcome("changed", commit)
        return self.refused(volume.published())._replace(counts={"commits_published": 1})

    def refused(self, published: Published) -> Outcome:
        """
        Return the outcome of a refusal; unless the ref is pinned, a one-shot may still succeed.
        """
        is_enough = bool(published.commit) and not self._options.is_pinned
        return Outcome("refused", published.commit, problem=self.refusal, is_enough=is_enough)

    def _ask(
        self, commit: str, published: Published, volume: Volume, fence: Fence
    ) -> tuple[RevisionRefused | None, Undecided | None]:
        """
        Let the gate judge the commit that is checked out.

        While nothing is published, and in a one-shot, which must end, repeatedly missing verdicts
        count as a refusal; it is returned with the error, so that the gate judges again later.

        Raises:
            Undecided: There is no verdict, and consumers have an older commit in the meantime.
            SidecarError: The checkout cannot be read.
            CycleAbandoned: The fence was revoked.
        """
        gate, worktree = self._context.gate, self._context.engine.worktree()
        if gate is None:
            return None, None
        self._asked.append(commit)
        # With other settings, the same commit has other files.
        before = published.commit if is_made_as_asked(published, self._options) else ""
        git, environ = self._options.git, self._context.environ
        with explained(f"cannot read {worktree}"):
            changed = changed_files(git, environ, worktree, before, commit) if before else None
            if changed is None:
                changed = volume.differing(worktree, before)
            changed += links_to(worktree, changed)
        while True:
            try:
                refusal = gate.judge(commit, worktree, changed, fence)
            except Undecided as error:
                with fence:
                    fence.blame = error
                if published.commit and not self._settings.one_shot:
                    raise
                if silence := gate.silence(commit, error):
                    return silence, error
                # Retry within this cycle: like git-sync, the process may exit at its first failure.
                fence.wait(ONCE_MORE_SECONDS)
            else:
                with fence:
                    fence.blame = None
                return refusal, None

    def _accept(self, refusal: RevisionRefused | None, why_nothing: str = "") -> None:
        """
        Note the gate's refusal of the newest commit; None if it accepts it.

        Args:
            why_nothing: Why no fallback is published.
        """
        self.refusal = refusal
        self._context.status.refuse(refusal, why_nothing)
        if self._context.gate is not None:
            self._context.gate.rest(is_refused=refusal is not None)

    def _announce(self, commit: str, fence: Fence) -> None:
        """
        Start the hooks; a one-shot waits for them.

        Raises:
            GaveUp: A hook failed in a one-shot, as in git-sync.
        """
        self._context.past.has_synced = True
        hooks = self._context.hooks
        if not self._settings.one_shot:
            hooks.announce(commit)
        elif problem := hooks.announce_once(commit, fence):
            raise GitSyncExitError(
                "hook_failed",
                f"{commit} is published, but {problem}",
                "A one-shot succeeds only if its hooks do: check the hook's output in the log.",
            )
