"""
git-sync-wrapper: a repository, a spared process and one that is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from soak.http_faults import http_faults
from soak.post import Post
from soak.readers import Reader, holding
from soak.station import Missing, Station
from soak.volume import volume
from tests.scenarios.git_sync_wrapper.git_sync.situations import (
    corrupt,
    head_lock,
    shallow_lock,
    tmp_link,
)
from tests.support.airflow.sync_perm import descendants_of, signal_all
from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import GitSite, skip_reason
from tests.support.revisions import make_revision

RETAIN_SECONDS = 15
USER = "airflow"
SETTINGS = {
    "GIT_SYNC_WRAPPER_RETAIN_COUNT": "1",
    "GIT_SYNC_WRAPPER_RETAIN_FOR": f"{RETAIN_SECONDS}s",
    "GIT_SYNC_WRAPPER_GATE": "command",
    "GIT_SYNC_WRAPPER_GATE_COMMAND": "/usr/bin/test ! -e BROKEN",
    "GIT_SYNC_WRAPPER_LOG_LEVEL": "info",
    "GITSYNC_PERIOD": "1s",
    "GITSYNC_SYNC_TIMEOUT": "10s",
    "GITSYNC_USERNAME": USER,
}


class GitSyncWrapper(Station):
    """
    A git server with a password, and two roots.
    """

    name = "git-sync-wrapper"

    def set_up(self) -> None:
        """
        Start a server and two wrappers.
        """
        if reason := skip_reason():
            raise Missing(reason)
        home = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-git-")))
        self.volume = self.stack.enter_context(volume(home / "volume", "128m"))
        self.server = self.stack.enter_context(GitServer(home / "remote"))
        self.repository = self.server.repository()
        self.password = home / "password"
        self.number = self.passwords = 0
        self.rotate_password()
        self.commit()
        self.sites: list[GitSite] = []
        for name in ("spared", "killed"):
            site = GitSite(self.server, self.volume.path / name)
            site.folder.mkdir()
            self.stack.callback(site.close)
            self.sites.append(site)
            daemon = site.describe(**SETTINGS, GITSYNC_PASSWORD_FILE=str(self.password))
            is_spared = name == "spared"
            self.posts.append(Post(name, daemon, is_spared=is_spared, folder=site.root))
            lock = self.volume.path / f"{name}.lock"
            arguments = ("tree", site.link, RETAIN_SECONDS)
            self.readers.append(Reader(lock, *arguments, environment={"PATH": "/usr/bin:/bin"}))
        self.changes = {
            "commit": self.commit,
            "three commits": self.three_commits,
            "force push": self.force_push,
            "branch goes back": self.branch_goes_back,
            "password rotated": self.rotate_password,
        }
        self.faults = {
            **http_faults(self.server),
            "bad commit": self.bad_commit,
            "branch deleted": self.branch_deleted,
            "password refused": self.password_refused,
            "git killed": self.git_killed,
            "locks left behind": self.locks,
            "repository wiped": self.wiped,
            "repository damaged": self.damaged,
            "link removed": self.link_removed,
            **({"volume full": self.volume.full} if self.volume.is_small else {}),
        }

    def behind(self) -> list[str]:
        """
        Compare the commits that the links show with the head of the branch.
        """
        self.server.forget()
        head = self.repository.head()
        found = []
        for site, post in zip(self.sites, self.posts, strict=True):
            if site.shown() != head:
                found.append(f"{post.name} shows {site.shown()[:12]} instead of {head[:12]}")
            elif error := post.last_error():
                found.append(error)
        return found

    def leftovers(self) -> list[str]:
        """
        Return the entries of a root that the contract does not list.
        """
        ours = (".git-sync", ".snapshots", "repo")
        return [str(path) for s in self.sites for path in s.root.iterdir() if path.name not in ours]

    def commit(self) -> None:
        """
        Change all files; add and remove some.
        """
        self.number += 1
        self.repository.commit(make_revision(self.number), whole=True)

    def three_commits(self) -> None:
        """
        Make three commits in a row, faster than the poll period.
        """
        for _ in range(3):
            self.commit()
            self.hold(0, 0.3)

    def force_push(self) -> None:
        """
        Push a commit that is not a descendant of the last one.
        """
        self.number += 1
        self.repository.commit(make_revision(self.number), whole=True, onto="")

    def branch_goes_back(self) -> None:
        """
        Reset the branch to the parent of its head.
        """
        self.commit()
        self.commit()
        self.hold(0, 2)
        self.repository.set_branch("main", self.repository.git("rev-parse", "main~1"))

    def rotate_password(self) -> None:
        """
        Set a new password; the old one stops working immediately.
        """
        self.passwords += 1
        self.server.refusal = self.chance.choice((401, 403))
        self.password.write_text(f"password-{self.passwords}")
        self.server.accept((USER, f"password-{self.passwords}"))

    @contextmanager
    def bad_commit(self) -> Iterator[None]:
        """
        Push a commit that the gate refuses, until another commit fixes it.
        """
        self.number += 1
        self.repository.commit({**make_revision(self.number), "BROKEN": b""}, whole=True)
        yield
        self.commit()

    @contextmanager
    def branch_deleted(self) -> Iterator[None]:
        """
        Delete the branch, and restore it.
        """
        head = self.repository.head()
        self.repository.delete_branch("main")
        yield
        self.repository.set_branch("main", head)

    @contextmanager
    def password_refused(self) -> Iterator[None]:
        """
        Lock the account for a while.
        """
        self.server.accept()
        yield
        self.rotate_password()

    @contextmanager
    def git_killed(self) -> Iterator[None]:
        """
        Send SIGKILL to every git process during a sync.
        """
        self.commit()
        for _ in range(20):
            for post in self.posts:
                signal_all(descendants_of(post.daemon.pid), signal.SIGKILL)
            self.ended.wait(0.05)
        yield

    @contextmanager
    def locks(self) -> Iterator[None]:
        """
        Leave stale locks and a temporary link.
        """
        for site in self.sites:
            for leave in (head_lock, shallow_lock, tmp_link):
                with suppress(OSError):
                    leave(site.root / ".git-sync")
        self.commit()
        yield

    @contextmanager
    def wiped(self) -> Iterator[None]:
        """
        Remove git-sync's own folder.
        """
        for site in self.sites:
            shutil.rmtree(site.root / ".git-sync", ignore_errors=True)
        self.commit()
        yield

    @contextmanager
    def damaged(self) -> Iterator[None]:
        """
        Overwrite every object of its repositories with garbage.
        """
        for site in self.sites:
            corrupt(site.root / ".git-sync")
        self.commit()
        yield

    @contextmanager
    def link_removed(self) -> Iterator[None]:
        """
        Remove the link that consumers read through; the sidecar must restore it.
        """
        with ExitStack() as stack:
            for reader in self.readers:
                stack.enter_context(holding(reader))
            for post in self.posts:
                stack.enter_context(post.damaged())
            stack.enter_context(self.until_in_step())
            for site in self.sites:
                with suppress(OSError):
                    os.unlink(site.link)
            yield
