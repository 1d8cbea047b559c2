"""
One wrapper whose cycles a test runs one by one.

A shell script stands in for git-sync, and `Remote` for the poll; everything else is real.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from git_sync_wrapper.context import Context, Past
from git_sync_wrapper.cycle import Session
from git_sync_wrapper.engine.engine import Engine
from git_sync_wrapper.error_file import ErrorFile
from git_sync_wrapper.flags.options import read_options
from git_sync_wrapper.hooks.runners import Hooks
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.settings import load_settings
from git_sync_wrapper.status import Status
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate
from sidecar_runtime.health import Outcome
from sidecar_runtime.http.endpoint import registry_of
from sidecar_runtime.volume.lock import TargetLock
from tests.support.raising import raised
from tests.support.scripts import script

ONE, TWO, THREE, FOUR = "1" * 40, "2" * 40, "3" * 40, "4" * 40
DOWN = SidecarError("remote_unreachable", "connection refused", "look")
# Checks out the commit that the file `source` names, with dag.py; fails without that file.
SCRIPT = """
echo run >> {folder}/runs
commit=$(cat {folder}/source 2>/dev/null) || {{
  cat {folder}/said 2>/dev/null || echo "Could not resolve host: x"
  exit 1
}}
tree="$GITSYNC_ROOT/.worktrees/$commit"
mkdir -p "$tree" "{folder}/gits"
git init -q --separate-git-dir "{folder}/gits/$commit" "$tree"
cp {folder}/dag.py "$tree/dag.py" || {{ echo "No space left on device"; exit 1; }}
mkdir -p "$GITSYNC_ROOT/.git/worktrees/$commit"
touch "$GITSYNC_ROOT/.git/worktrees/$commit/index"
ln -sfn ".worktrees/$commit" "$GITSYNC_ROOT/candidate"
"""


class Remote:
    """Answers polls with the commit that git-sync would find, a newer one, or an error."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self.newer = ""
        self.error: Exception | None = None
        self.on_poll: Callable[[], object] = lambda: None
        self.polls = 0

    def commit(self, fence: Fence) -> str:
        self.polls += 1
        self.on_poll()
        if self.error:
            raise self.error
        return self.newer or self._source.read_text()

    def close(self) -> None:
        pass


class Wrapper:
    """The context and the session of one process."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.is_stopped = False
        program = script(folder / "git-sync", SCRIPT.format(folder=folder))
        (folder / "dag.py").touch()
        environ = {
            "PATH": os.environ["PATH"],
            "GITSYNC_REPO": "https://git.example.com/dags.git",
            "GITSYNC_ROOT": str(self.root),
            "GITSYNC_LINK": "repo",
            "GIT_SYNC_WRAPPER_GIT_SYNC": program,
            **variables,
        }
        settings, _ = load_settings(environ)
        options = read_options([], environ)
        settings = dataclasses.replace(settings, one_shot=options.one_time)
        self.access = Access(settings, options, environ)
        self.access.start()
        self.metrics = WrapperMetrics("0", "0")
        self.remote = Remote(folder / "source")
        self.hooks = Hooks(options, environ, self.metrics.git_sync.count_hook)
        self.hooks.start()
        self.context = Context(
            settings=settings,
            options=options,
            environ=environ,
            engine=Engine(
                settings.git_sync, options, self.access, environ, root=f"{self.root}/.git-sync"
            ),
            poller=self.remote,
            gate=make_gate(settings, self.metrics.gate),
            hooks=self.hooks,
            metrics=self.metrics,
            status=Status(options, {}),
            report=ErrorFile(options.error_file),
            past=Past(TargetLock()),
        )
        self.session = Session(self.context)

    def commit(self, name: str, dag: str = "a = 1\n") -> None:
        (self.folder / "dag.py").write_text(dag)
        (self.folder / "source").write_text(name)

    def follow(self, name: str, dag: str = "a = 1\n") -> Outcome:
        """Set the commit of the remote, and run a cycle."""
        self.commit(name, dag)
        return self.cycle()

    def lose_remote(self, said: str = "Could not resolve host: x") -> None:
        """Make polls fail, and git-sync with this message."""
        self.remote.error = DOWN
        (self.folder / "said").write_text(said)
        (self.folder / "source").unlink()

    def cycle(self, *, is_asked_for: bool = False) -> Outcome:
        return self.session.cycle(Fence(is_asked_for=is_asked_for))

    def failure(self) -> SidecarError:
        return raised(SidecarError, self.cycle)

    def runs(self) -> int:
        runs = self.folder / "runs"
        return len(runs.read_text().splitlines()) if runs.exists() else 0

    def shown(self) -> str:
        return os.path.basename(os.readlink(self.root / "repo"))

    def kept(self) -> set[str]:
        folder = self.root / ".snapshots"
        return {path.name for path in folder.iterdir() if path.is_dir()}

    def count(self, name: str, **labels: str) -> float:
        return registry_of(self.metrics.families).get_sample_value(name, labels) or 0

    def stop(self) -> None:
        self.is_stopped = True
        self.session.close()
        self.hooks.stop()
        self.access.close()
        self.context.past.lock.release()


class Start:
    """Starts wrappers on one volume; they end with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Wrapper] = []

    def __call__(self, **variables: str) -> Wrapper:
        wrapper = Wrapper(self._folder, **variables)
        self._started.append(wrapper)
        return wrapper

    def published(self, **variables: str) -> Wrapper:
        """Start a wrapper that has published its first commit."""
        wrapper = self(**variables)
        wrapper.follow(ONE)
        return wrapper

    def stop(self) -> None:
        for wrapper in self._started:
            if not wrapper.is_stopped:
                wrapper.stop()
