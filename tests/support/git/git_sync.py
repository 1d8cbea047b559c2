"""
git-sync as a process, with and without the wrapper, with a remote and a volume.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import Bodies, Texts
from tests.support import revisions
from tests.support.daemon import VENV_BIN, Settings, SidecarProcess
from tests.support.git.git_repository import Repository
from tests.support.git.git_server import HTTP_BACKEND, GitServer
from tests.support.revisions import make_revision
from tests.support.waiting import PATIENCE_SECONDS, wait_until

WRAPPER = VENV_BIN / "git-sync-wrapper"
GIT_SYNC = Path(
    os.environ.get("GIT_SYNC_BIN") or shutil.which("git-sync") or "/git-sync"
)


def skip_reason() -> str:
    """
    Return why git-sync cannot run against a server on this machine; empty if it can.
    """
    if not GIT_SYNC.is_file():
        return "needs git-sync 4: set GIT_SYNC_BIN"
    if shutil.which("git") and os.access(HTTP_BACKEND, os.X_OK):
        return ""
    return "a git server needs git with its http-backend: make setup-test as root"


def skip_without_git_sync() -> None:
    """
    Skip if git-sync cannot run against a server.
    """
    if reason := skip_reason():
        pytest.skip(reason)


@dataclass
class GitSite:
    """
    A remote with one repository, a volume, and processes that `close` kills.
    """

    server: GitServer
    folder: Path
    engine: Path = GIT_SYNC
    processes: list[SidecarProcess] = field(default_factory=list)
    tmp: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="git-")))
    """TMPDIR; short, because the path of a socket must be short."""

    @property
    def repository(self) -> Repository:
        """
        The synced repository, empty at first.
        """
        return self.server.repository()

    @property
    def root(self) -> Path:
        """
        GITSYNC_ROOT.
        """
        return self.folder / "root"

    @property
    def store(self) -> Path:
        """
        The folder of the commits that the wrapper keeps.
        """
        return self.root / ".snapshots"

    @property
    def link(self) -> Path:
        """
        The link that consumers read.
        """
        return self.root / "repo"

    def environment(self) -> Settings:
        """
        Return the variables for both plain git-sync and the wrapper: short periods,
        long timeouts.
        """
        self.tmp.mkdir(exist_ok=True)
        return {
            "GITSYNC_REPO": self.server.url(),
            "GITSYNC_REF": self.repository.branch,
            "GITSYNC_ROOT": str(self.root),
            "GITSYNC_LINK": "repo",
            "GITSYNC_PERIOD": "200ms",
            "GITSYNC_MAX_FAILURES": "-1",
            "TMPDIR": str(self.tmp),
        }

    def plain(self, *arguments: str, **settings: str | None) -> SidecarProcess:
        """
        Start git-sync without the wrapper.
        """
        return self._process(
            self.engine, self.environment() | settings, arguments
        ).start()

    def describe(self, *arguments: str, **settings: str | None) -> SidecarProcess:
        """
        Describe a wrapper without starting it; it is killed at the end of the test.
        """
        environment: Settings = {
            **self.environment(),
            "GIT_SYNC_WRAPPER_GIT_SYNC": str(self.engine),
            "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",
            "GIT_SYNC_WRAPPER_LOG_LEVEL": "debug",
        }
        return self._process(WRAPPER, environment | settings, arguments)

    def _process(
        self, program: Path, environment: Settings, words: tuple[str, ...]
    ) -> SidecarProcess:
        process = SidecarProcess(program, environment, self.folder / "home", words)
        self.processes.append(process)
        return process

    def wrapper(self, *arguments: str, **settings: str | None) -> SidecarProcess:
        """
        Start a wrapper.
        """
        return self.describe(*arguments, **settings).start()

    def run_once(self, **settings: str | None) -> SidecarProcess:
        """
        Run a one-shot, which must succeed.
        """
        one_shot = self.wrapper("--one-time", **settings)
        assert 0 == one_shot.wait_for_exit().code, one_shot.log()[-4000:]
        return one_shot

    def publish(self, **settings: str | None) -> SidecarProcess:
        """
        Start a wrapper and wait until it publishes the head of the branch.
        """
        wrapper = self.wrapper(**settings)
        self.wait_until_shown(self.repository.head(), wrapper)
        return wrapper

    def commit_revision(self, number: int, **options: Any) -> str:
        """
        Commit a revision whose files all contain its number, and return the hash.
        """
        return self.repository.commit(make_revision(number), whole=True, **options)

    def shown(self) -> str:
        """
        Return the hash of the commit that consumers see, from the folder's name, which
        may end with a number; empty if none.
        """
        with suppress(OSError):
            return (
                Path(os.readlink(self.link)).name if self.link.is_dir() else ""
            ).partition(".")[0]
        return ""

    def files(self) -> Bodies:
        """
        Return the files that consumers find through the link, without `.git`.
        """
        root = self.link.resolve(strict=True)
        found = (path for path in root.rglob("*") if path.is_file())
        files = {str(path.relative_to(root)): path.read_bytes() for path in found}
        return {path: content for path, content in files.items() if path != ".git"}

    def wait_until_shown(
        self,
        commit: str,
        process: SidecarProcess | None = None,
        timeout_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """
        Wait until consumers see a commit.
        """

        def is_shown() -> bool:
            is_right = self.shown() == commit
            assert is_right or process is None or process.is_running(), "it ended"
            return is_right

        try:
            wait_until(is_shown, f"{commit} is shown", timeout_seconds)
        except AssertionError as error:
            log = process.log()[-3000:] if process else ""
            raise AssertionError(f"{error}; shown: {self.shown()}\n{log}") from None

    def gits_alive(self) -> Iterator[tuple[int, str]]:
        """
        Yield ids and command lines of all processes that work for this site.
        """
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError):
                raw = Path(f"/proc/{pid}/cmdline").read_bytes()
                line = raw.replace(b"\0", b" ").decode(errors="replace").strip()
                environ = Path(f"/proc/{pid}/environ").read_text(errors="replace")
                is_ours = str(self.folder) in line or f"={self.folder}/" in environ
                # nor this process and its readers
                is_test = pid == os.getpid() or revisions.__file__ in line
                if line and is_ours and not is_test:
                    yield pid, line

    def kill_engine(self) -> None:
        """
        Send SIGKILL to git-sync and every git below it, but not to the wrapper.
        """
        wrappers = {process.pid for process in self.processes if process.is_running()}
        for pid, _ in self.gits_alive():
            if pid not in wrappers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """
        Kill the remaining processes, including orphans, and remove TMPDIR.
        """
        with ExitStack() as stack:
            for process in self.processes:
                stack.push(process)
        self.kill_engine()
        shutil.rmtree(self.tmp, ignore_errors=True)


@contextmanager
def git_site(
    folder: Path, engine: Path = GIT_SYNC, **options: Any
) -> Iterator[GitSite]:
    """
    Provide a remote without commits and an empty volume; kill all processes at the end.

    Args:
        folder: The folder for both.
        engine: git-sync, as found by the wrapper.
        options: Options of the server.
    """
    with GitServer(folder / "remote", **options) as server:
        site = GitSite(server, folder / "pod", engine)
        site.folder.mkdir()
        try:
            yield site
        finally:
            site.close()


def corrupt(root: Path) -> None:
    """
    Damage every object of git-sync's repository in this root.
    """
    for folder, _, names in os.walk(root / ".git/objects"):  # git may remove files here
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                path.chmod(0o644)
                path.write_bytes(b"damaged")


def chart_environment(site: GitSite, **more: str) -> Texts:
    """
    Return git-sync's variables in the official chart 1.22, in both spellings.

    Args:
        site: Provides the remote and the volume instead of the chart's paths.
        more: Other variables, without their prefix.
    """
    branch = site.repository.branch
    values = {
        "GIT_SYNC_REV": "HEAD",
        "GIT_SYNC_BRANCH": branch,
        "GITSYNC_REF": branch,
        "GIT_SYNC_DEST": "repo",
        "GITSYNC_LINK": "repo",
        "GITSYNC_PERIOD": "1s",
        "GIT_SYNC_MAX_SYNC_FAILURES": "0",
        "GITSYNC_MAX_FAILURES": "0",
    }
    both = {
        "REPO": site.server.url(),
        "ROOT": str(site.root),
        "DEPTH": "1",
        "ADD_USER": "true",
        "HTTP_BIND": "127.0.0.1:0",
    }
    for name, value in {**both, **more}.items():
        values[f"GIT_SYNC_{name}"] = values[f"GITSYNC_{name}"] = value
    return values
