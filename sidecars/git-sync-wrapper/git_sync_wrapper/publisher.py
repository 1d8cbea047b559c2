"""
From a commit that git-sync has checked out to consumers: gate → snapshot → link → hooks.
"""

from __future__ import annotations

from git_sync_wrapper.context import Context, GitSyncExitError
from git_sync_wrapper.fallback import NoFallback, check_out, fall_back
from git_sync_wrapper.published.commit import describe
from git_sync_wrapper.published.difference import find_difference, is_made_as_asked, made_by
from git_sync_wrapper.published.tree import changed_files, links_to
from git_sync_wrapper.published.volume import Published, Volume
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Undecided
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Outcome
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.errors import explained

ONCE_MORE_SECONDS = 1.0
"""Until the gate is asked once more where nothing is published yet."""

log = get_logger("publisher")


class Publisher:
    """
    Publishes commits, and knows which one the gate refuses.

    Attributes:
        refusal: Of the newest commit; None where the gate lets it pass.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._options = context.options
        self.refusal: RevisionRefused | None = None
        self._asked: list[str] = []
        """The commits that the gate was asked about for the newest one."""

    @property
    def is_due(self) -> bool:
        """
        Whether the gate is to look again at a commit that it has refused.
        """
        gate = self._context.gate
        return gate is not None and any(gate.is_due(commit) for commit in self._asked)

    def confirm(self, commit: str, fence: Fence) -> Outcome:
        """
        What is published is what the remote has; the first time that counts as a change.
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
        Let consumers see a commit, if the gate does.

        Args:
            is_whole: Whether what is published is known to be what its commit has.
        """
        context, options = self._context, self._options
        if commit == published.commit and is_made_as_asked(published, options):
            if not is_whole:
                volume.repair(commit, context.engine.worktree(), fence)
            if published.fallback or find_difference(published, options).shortfall:
                # Now it is the newest, and of this ref.
                volume.show(commit, made_by(options), fence, facts=published.facts)
                context.note(volume.published())
            return self.confirm(commit, fence)
        self._asked.clear()
        refusal, undecided = self._ask(commit, published, fence)
        shown = commit
        if refusal is not None:
            if published.commit:
                if not is_whole:
                    check_out(context.engine, published.commit, fence)
                    volume.repair(published.commit, context.engine.worktree(), fence)
                # A tag may move, as releases by a tag do: then what it was before is the last good.
                self._accept(refusal)
                return self.refused(published)

            def judge(older: str) -> RevisionRefused | None:
                nonlocal undecided
                found, no_verdict = self._ask(older, published, fence)
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
            context.engine.check_whole(fence)  # and so is its copy
            context.hooks.prepublish(shown, fence)
        except SidecarError:
            volume.drop_unshown(fence)
            raise
        # So were those that were asked for.
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
        return self.refused(volume.published()) if refusal else Outcome("changed", commit)

    def refused(self, published: Published) -> Outcome:
        """
        The gate refuses the newest commit; a one-shot may end with another, but for a pin.
        """
        is_enough = bool(published.commit) and not self._options.is_pinned
        return Outcome("refused", published.commit, problem=self.refusal, is_enough=is_enough)

    def _ask(
        self, commit: str, published: Published, fence: Fence
    ) -> tuple[RevisionRefused | None, Undecided | None]:
        """
        Ask the gate about what is checked out.

        Where nothing is published yet, and in a one-shot, which must end, no verdict again and
        again counts as a refusal; it comes with the reason to ask once more later.

        Raises:
            Undecided: There is no verdict, and something is published meanwhile.
            SidecarError: What is checked out cannot be read.
            CycleAbandoned: The fence was revoked.
        """
        gate, worktree = self._context.gate, self._context.engine.worktree()
        if gate is None:
            return None, None
        self._asked.append(commit)
        # Other settings show other files of the same commit.
        before = published.commit if is_made_as_asked(published, self._options) else ""
        git, environ = self._options.git, self._context.environ
        with explained(f"cannot read {worktree}"):
            changed = changed_files(git, environ, worktree, before, commit)
            changed += links_to(worktree, changed)
        while True:
            try:
                return gate.judge(commit, worktree, changed, fence), None
            except Undecided as error:
                if published.commit and not self._settings.one_shot:
                    raise
                if silence := gate.silence(commit, error):
                    return silence, error
                # Not in the next cycle: as git-sync, a process may end at its first failure.
                fence.wait(ONCE_MORE_SECONDS)

    def _accept(self, refusal: RevisionRefused | None, why_nothing: str = "") -> None:
        """
        Note what the gate says of the newest commit; nothing where it lets it pass.

        Args:
            why_nothing: Why nothing is published instead.
        """
        self.refusal = refusal
        self._context.status.refuse(refusal, why_nothing)
        if self._context.gate is not None:
            self._context.gate.rest(is_refused=refusal is not None)

    def _announce(self, commit: str, fence: Fence) -> None:
        """
        Let the hooks know; a one-shot waits for them.

        Raises:
            GaveUp: One of them failed in a one-shot, as in git-sync.
        """
        self._context.past.has_synced = True
        hooks = self._context.hooks
        if not self._settings.one_shot:
            hooks.announce(commit)
        elif problem := hooks.announce_once(commit, fence):
            raise GitSyncExitError(
                "hook_failed",
                f"{commit} is published, but {problem}",
                "A one-shot ends with its hooks; look at what the hook says.",
            )
