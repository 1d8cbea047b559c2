"""
Check that a commit is in the history of the published commit; fetches commits without files.

A server sends any commit by its hash; the large forges even send commits of forks. So a requested
commit must be an ancestor of the published one: only people who may push to the ref decide what
runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NoReturn

from git_sync_wrapper.context import Context
from git_sync_wrapper.git import surroundings
from git_sync_wrapper.published.record import STORE
from git_sync_wrapper.published.volume import HISTORY, Volume
from git_sync_wrapper.remote_git import RemoteGit
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.trees import remove_tree

# A replica of the server may be behind: a commit is missing if two lookups this far apart fail.
SURE_SECONDS = 4.0
ABSENT = 64
# Files of packs; above that, the history is fetched again.
PACK_FILES = 600
# Commits alone, a few hundred bytes each; a server without support for filters sends the files too.
FETCH = ("fetch", "--quiet", "--no-tags", "--no-auto-maintenance", "--no-recurse-submodules")
COMMITS_ALONE = "--filter=tree:0"
# Names for fetched commits, so that the next fetch downloads only new ones.
TIP, SHOWN = "refs/history/tip", "refs/history/shown"


class History:
    """
    A repository of commits in the store of a volume.
    """

    def __init__(self, context: Context, volume: Volume, deadline_seconds: float) -> None:
        """
        Args:
            deadline_seconds: The limit for each call of git.
        """
        self._deadline_seconds = deadline_seconds
        self._absent: dict[str, float] = {}
        self._options = context.options
        self._environ = context.environ
        self._remote = RemoteGit(context.options, context.engine.access, context.environ)
        self._store = volume.store
        self._path = os.path.join(volume.root, STORE, HISTORY)

    def require(self, commit: str, shown: str, fence: Fence) -> None:
        """
        Require that a commit is in the history of the published commit.

        Raises:
            SidecarError: ``commit_not_shown`` if it is only in the ref's history,
                ``commit_missing`` if it is in neither; or the remote fails.
            CycleAbandoned: The fence was revoked.
        """
        try:
            self._require(commit, shown, fence)
        except SidecarError as error:
            if error.reason in ("git_sync_failed", "target_full"):
                with suppress(OSError):  # this repository may be damaged, or fill the volume
                    remove_tree(HISTORY, self._store)
            raise

    def _require(self, commit: str, shown: str, fence: Fence) -> None:
        with suppress(OSError):  # each fetch adds a pack, and nothing joins them
            if len(os.listdir(os.path.join(self._path, "objects/pack"))) > PACK_FILES:
                remove_tree(HISTORY, self._store)
        if not os.path.isdir(self._path):
            init = ("init", "--quiet", "--bare", "--template=", self._path)
            self._ask(init, os.path.dirname(self._path), fence)
        # By name first: some servers send nothing by hash.
        for wanted, place in ((self._options.ref, TIP), (shown, SHOWN)):
            if not self._has(shown, fence):
                self._fetch(wanted, place, fence)
        if self._leads(commit, shown, fence):
            return
        self._fetch(self._options.ref, TIP, fence)
        if self._leads(commit, TIP, fence):
            raise SidecarError(
                "commit_not_shown",
                f"{commit} is newer than the published commit {shown}",
                "Wait until it is published; check whether the gate refuses it.",
            )
        self._not_here(commit)

    def _not_here(self, commit: str) -> NoReturn:
        """
        Raise ``commit_missing``, or ``commit_not_shown`` if that is not certain yet.
        """
        now = time.monotonic()
        since = self._absent.setdefault(commit, now)
        if len(self._absent) > ABSENT:
            del self._absent[next(iter(self._absent))]
        if now - since < SURE_SECONDS:
            raise SidecarError(
                "commit_not_shown",
                f"{commit} is not in the history of {self._options.ref}; it is looked up again",
                "Wait for the second lookup: a replica of the git server may be behind.",
            )
        raise SidecarError(
            "commit_missing",
            f"{commit} is not in the history of {self._options.ref}",
            "Only commits of the ref are available; a forced push removes some from its history.",
        )

    def _fetch(self, wanted: str, place: str, fence: Fence) -> None:
        try:
            self._remote.run(
                [*FETCH, COMMITS_ALONE, "origin", f"+{wanted}:{place}"],
                "cannot fetch the history",
                fence,
                deadline_seconds=self._deadline_seconds,
                folder=self._path,
                # As one pack: each separate commit would take a block of the volume.
                configs=[("remote.origin.url", self._options.repo), ("fetch.unpackLimit", "1")],
            )
        finally:
            self._remove_halves(fence)

    def _remove_halves(self, fence: Fence) -> None:
        """
        Remove the temporary files of a killed git, each up to the size of the repository.

        Raises:
            CycleAbandoned: The fence was revoked; the files may belong to a successor.
        """
        packs = os.path.join(self._path, "objects", "pack")
        with fence, suppress(OSError):
            for name in os.listdir(packs):
                if name.startswith("tmp_"):
                    os.unlink(os.path.join(packs, name))

    def _has(self, commit: str, fence: Fence) -> bool:
        return self._tell(("cat-file", "-e", f"{commit}^{{commit}}"), fence, no=(1, 128))

    def _leads(self, commit: str, later: str, fence: Fence) -> bool:
        words = ("merge-base", "--is-ancestor", commit, later)
        return self._has(commit, fence) and self._tell(words, fence)

    def _tell(self, words: Sequence[str], fence: Fence, no: Collection[int] = (1,)) -> bool:
        return self._ask(words, self._path, fence, known=(0, *no)) == 0

    def _ask(
        self, words: Sequence[str], folder: str, fence: Fence, known: Collection[int] = (0,)
    ) -> int:
        """
        Let git answer from the local repository; return its exit code.

        Raises:
            SidecarError: The exit code is not in `known`, or git cannot be started.
            CycleAbandoned: The fence was revoked.
        """
        environ = surroundings(self._environ, [("safe.directory", "*")])
        environ["GIT_NO_LAZY_FETCH"] = "1"
        command = child.Command([self._options.git, *words], environ, folder)
        said = child.Kept()
        try:
            code = child.run(command, fence, self._deadline_seconds, said)
        except (OSError, child.DeadlinePassed) as error:
            raise _failed(str(error) or "it took too long") from None
        if code not in known:
            raise _failed(str(said) or child.ending(code))
        return code


def _failed(why: str) -> SidecarError:
    return SidecarError(
        "git_sync_failed",
        f"git cannot read the history of the published commit: {why}",
        "The history is fetched again. Check the container's memory limit.",
    )
