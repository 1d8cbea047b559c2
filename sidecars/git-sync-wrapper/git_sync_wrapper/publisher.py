"""
From a commit that git-sync has checked out to consumers: gate → snapshot → link → hooks.
"""

from __future__ import annotations

import hashlib
import json

from git_sync_wrapper.context import Context, GitSyncExitError
from git_sync_wrapper.published.tree import changed_files, links_to
from git_sync_wrapper.published.volume import Published, Volume
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.health import Outcome


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
        told = self._options
        facts = [told.repo, told.depth, told.filter, told.submodules, told.group_write]
        self._digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        self.refusal: RevisionRefused | None = None

    def is_made_as_asked(self, published: Published) -> bool:
        """
        Whether the settings that decide about a commit's files were the same when it was made.
        """
        return published.made_by in ("", self._made_by())

    def confirm(self, commit: str, fence: Fence) -> Outcome:
        """
        What is published is what the remote has; the first time that counts as a change.
        """
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
        context, made_by = self._context, self._made_by()
        if commit == published.commit and self.is_made_as_asked(published):
            if not is_whole:
                volume.repair(commit, context.engine.worktree(), fence)
            self._accept(None)
            return self.confirm(commit, fence)
        worktree = context.engine.worktree()
        if refusal := self._judge(commit, published, worktree, fence):
            self._accept(refusal)
            return Outcome("refused", published.commit, problem=refusal)
        volume.add(commit, worktree, fence)
        context.hooks.prepublish(commit, fence)
        volume.show(commit, made_by, fence)
        self._accept(None)
        context.status.publish(volume.published())
        self._announce(commit, fence)
        return Outcome("changed", commit)

    def _judge(
        self, commit: str, published: Published, worktree: str, fence: Fence
    ) -> RevisionRefused | None:
        gate = self._context.gate
        if gate is None:
            return None
        changed = changed_files(
            self._options.git, self._context.environ, worktree, published.commit, commit
        )
        changed += links_to(worktree, changed)
        return gate.judge(commit, worktree, changed, fence)

    def _accept(self, refusal: RevisionRefused | None) -> None:
        """
        Note what the gate says of the newest commit; nothing where it lets it pass.
        """
        self.refusal = refusal
        self._context.status.refuse(refusal)
        if refusal is None and self._context.gate is not None:
            self._context.gate.rest()

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
