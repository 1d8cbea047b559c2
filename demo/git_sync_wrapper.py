"""
The steps of git-sync-wrapper: a git server with a password, a DAG folder, and failures.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from demo import console, script
from demo.console import say
from demo.daemon import Daemon
from demo.script import Result, Step, check
from tests.support.git.git_repository import Repository
from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import GIT_SYNC, skip_reason
from tests.support.http.loopback import Request

PROGRAM = "git-sync-wrapper"
USER = "airflow"
GOOD = "from airflow.sdk import dag\n\n\n@dag\ndef sales() -> None: ...\n"
BROKEN = "from airflow.sdk import dag\n\n\n@dag\ndef sales( -> None: ...\n"


@dataclass
class Stage:
    """
    The objects that the steps act on.
    """

    server: GitServer
    repository: Repository
    home: Path
    daemon: Daemon
    start: Callable[[], Daemon]

    @property
    def concerned(self) -> Daemon:
        """
        The daemon whose log is printed when a step fails.
        """
        return self.daemon

    @property
    def link(self) -> Path:
        return self.home / "git" / "repo"

    @property
    def password(self) -> Path:
        return self.home / "secret" / "password"

    def shown(self) -> str:
        """
        Return the commit that the link shows; empty if there is no link.
        """
        with suppress(OSError):
            return Path(os.readlink(self.link)).name if self.link.is_dir() else ""
        return ""

    def wait_for(self, commit: str) -> float:
        """
        Wait until the link shows a commit, and return the seconds that it took.
        """
        began = time.monotonic()
        self.daemon.wait_for(lambda: self.shown() == commit, f"{commit[:12]} is shown")
        return time.monotonic() - began


def good_commit(stage: Stage) -> Result:
    """
    The first commit, and the next one.
    """
    first = stage.repository.head()
    stage.wait_for(first)
    stage.daemon.wait_for(lambda: stage.daemon.readiness()["code"] == 200, "/readyz answers 200")
    say(f"{stage.link} -> {os.readlink(stage.link)}")
    say(f"status page while this runs: {stage.daemon.url()}/")
    second = stage.repository.commit({"dags/sales.py": GOOD + "# changed\n"})
    seconds = stage.wait_for(second)
    check((stage.home / "git" / ".snapshots" / first).is_dir(), "the first snapshot still exists")
    return Result("published two commits; time: from the second commit to the link", seconds)


def bad_commit(stage: Stage) -> Result:
    """
    A commit that does not compile, and the one that fixes it.
    """
    before = stage.shown()
    bad = stage.repository.commit({"dags/sales.py": BROKEN})
    event = stage.daemon.wait_for(
        lambda: stage.daemon.find_event("revision_refused", revision=bad), "the commit is refused"
    )
    check(stage.shown() == before, "the last good commit stays")
    readiness = stage.daemon.readiness()
    check(readiness["code"] == 200, "/readyz stays 200: DAGs are published")
    say(f"revision_refused: {event['path']}, line {event['line']}: {event['problem']}")
    seconds = stage.wait_for(stage.repository.commit({"dags/sales.py": GOOD}))
    return Result("refused, with file and line; time: until the fix is published", seconds)


def password_is_rotated(stage: Stage) -> Result:
    """
    A new password; the server refuses the old one with 403, after which git keeps its cached one.
    """
    stage.server.refusal = 403
    stage.server.accept((USER, "second password"))
    stage.password.write_text("second password")
    say("changed the password on the server and in the file; the old one now gets a 403")
    failures = stage.daemon.find_event("cycle_failed")
    seconds = stage.wait_for(stage.repository.commit({"dags/rotated.py": GOOD}))
    check(stage.daemon.find_event("cycle_failed") == failures, "no cycle failed")
    return Result("used immediately, without a failed cycle or a restart", seconds)


def remote_is_down(stage: Stage) -> Result:
    """
    The server is down for a while, and git-sync's own repository was deleted.
    """
    before = stage.shown()
    stage.server.stop()
    private = stage.home / "git" / ".git-sync"
    while private.exists():  # git may be writing to it
        shutil.rmtree(private, ignore_errors=True)
    say("stopped the git server, and deleted git-sync's repository on the volume")
    event = stage.daemon.wait_for(
        lambda: stage.daemon.find_event("cycle_failed", consecutive_failures=2), "two failures"
    )
    check(stage.shown() == before, "the last good commit stays")
    check(stage.daemon.readiness()["code"] == 200, "/readyz stays 200")
    say(f"/readyz  200  reason={event['reason']}")
    stage.server.start()
    commit = stage.repository.commit({"dags/after_the_outage.py": GOOD})
    seconds = stage.wait_for(commit)
    return Result("the DAGs stayed; time: from the server's restart to its new commit", seconds)


def kill(stage: Stage) -> Result:
    """
    SIGKILL during a fetch, and the locks that it leaves.
    """
    before = stage.shown()
    stage.server.forget()
    stage.server.inject(lambda exchange: exchange.hang(), is_pack, times=1)
    commit = stage.repository.commit({"dags/after_the_kill.py": GOOD})
    stage.server.wait_for(is_pack)
    stage.daemon.kill()
    (stage.home / "git" / ".git-sync" / ".git" / "shallow.lock").touch()
    stage.server.release()
    say("killed the wrapper during a fetch, and left a lock file behind")
    check(stage.shown() == before, "the last good commit stays")
    stage.daemon = stage.start()
    seconds = stage.wait_for(commit)
    return Result("the next start repaired it; time: from the start to the new commit", seconds)


def is_pack(request: Request) -> bool:
    """
    Whether a request fetches objects.
    """
    return b"command=fetch" in request.body


def daemon_stops(stage: Stage) -> Result:
    """
    SIGTERM.
    """
    before = stage.shown()
    seconds = stage.daemon.terminate()
    check(stage.shown() == before, "the DAGs stay")
    return Result("exited with code 0; the DAGs stayed", seconds)


STEPS: tuple[Step[Stage], ...] = (
    ("new commits", good_commit),
    ("a bad commit", bad_commit),
    ("password rotation", password_is_rotated),
    ("remote outage", remote_is_down),
    ("SIGKILL", kill),
    ("SIGTERM", daemon_stops),
)


def settings_for(repository: str, home: Path) -> dict[str, str]:
    """
    Return the settings of a wrapper, without credentials.

    Args:
        repository: Its URL.
        home: HOME; the link is `git/repo` in it.
    """
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "GITSYNC_REPO": repository,
        "GITSYNC_REF": "main",
        "GITSYNC_ROOT": str(home / "git"),
        "GITSYNC_LINK": "repo",
        "GITSYNC_PERIOD": "500ms",
        "GIT_SYNC_WRAPPER_GIT_SYNC": str(GIT_SYNC),
        "GIT_SYNC_WRAPPER_GATE": "syntax",
        "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",
    }


def play(home: Path) -> int:
    """
    Play all steps and return the exit code; if something is missing, print it and skip them.
    """
    if reason := skip_reason():
        console.heading(f"git-sync-wrapper: skipped: {reason}")
        return 0
    home = home / "git-sync"
    (home / "secret").mkdir(parents=True)
    console.heading("git-sync-wrapper: the real daemon, against a git server in this process")
    with GitServer(home / "remote") as server:
        repository = server.repository()
        repository.commit({"dags/sales.py": GOOD, "README.md": "# DAGs\n"})
        server.accept((USER, "first password"))
        (home / "secret" / "password").write_text("first password")
        settings = {
            **settings_for(server.url(), home),
            "GITSYNC_USERNAME": USER,
            "GITSYNC_PASSWORD_FILE": str(home / "secret" / "password"),
        }
        logs = (home / f"daemon-{number}.log" for number in range(len(STEPS)))
        daemons: list[Daemon] = []

        def start() -> Daemon:
            daemons.append(Daemon(PROGRAM, settings, next(logs)))
            return daemons[-1]

        try:
            stage = Stage(server, repository, home, start(), start)
            return script.play(STEPS, stage)
        finally:
            for daemon in daemons:
                daemon.kill()
