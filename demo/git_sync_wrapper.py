"""
The steps of git-sync-wrapper: a git server with a password, a DAG folder, and failures.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from demo import script
from demo.script import Result, Step, check, say
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite, git_site, skip_reason
from tests.support.http.loopback import Request

USER = "airflow"
GOOD = "from airflow.sdk import dag\n\n\n@dag\ndef sales() -> None: ...\n"
BROKEN = "from airflow.sdk import dag\n\n\n@dag\ndef sales( -> None: ...\n"


@dataclass
class Stage:
    """
    The objects that the steps act on.
    """

    here: GitSite
    daemon: SidecarProcess
    password: Path

    def wait_for(self, commit: str) -> float:
        """
        Wait until the link shows a commit, and return the seconds that it took.
        """
        began = time.monotonic()
        self.here.wait_until_shown(commit, self.daemon)
        return time.monotonic() - began


def good_commit(stage: Stage) -> Result:
    """
    The first commit, and the next one.
    """
    first = stage.here.repository.head()
    stage.wait_for(first)
    stage.daemon.wait_until_ready()
    say(f"{stage.here.link} -> {os.readlink(stage.here.link)}")
    seconds = stage.wait_for(
        stage.here.repository.commit({"dags/sales.py": GOOD + "# changed\n"})
    )
    check((stage.here.store / first).is_dir(), "the first snapshot still exists")
    return Result(
        "published two commits; time: from the second commit to the link", seconds
    )


def bad_commit(stage: Stage) -> Result:
    """
    A commit that does not compile, and the one that fixes it.
    """
    before = stage.here.shown()
    bad = stage.here.repository.commit({"dags/sales.py": BROKEN})
    event = stage.daemon.wait_for_event("revision_refused", revision=bad)
    check(stage.here.shown() == before, "the last good commit stays")
    check(
        stage.daemon.get("/readyz").status == 200,
        "/readyz stays 200: DAGs are published",
    )
    say(f"revision_refused: {event['path']}, line {event['line']}: {event['problem']}")
    seconds = stage.wait_for(stage.here.repository.commit({"dags/sales.py": GOOD}))
    return Result(
        "refused, with file and line; time: until the fix is published", seconds
    )


def password_is_rotated(stage: Stage) -> Result:
    """
    A new password; the server refuses the old one with 403, after which git keeps its
    cached one.
    """
    stage.here.server.refusal = 403
    stage.here.server.accept((USER, "second password"))
    stage.password.write_text("second password")
    say(
        "changed the password on the server and in the file; the old one now gets a 403"
    )
    failures = len(stage.daemon.find_events("cycle_failed"))
    seconds = stage.wait_for(stage.here.repository.commit({"dags/rotated.py": GOOD}))
    check(len(stage.daemon.find_events("cycle_failed")) == failures, "no cycle failed")
    return Result("used immediately, without a failed cycle or a restart", seconds)


def remote_is_down(stage: Stage) -> Result:
    """
    The server is down for a while, and git-sync's own repository was deleted.
    """
    before = stage.here.shown()
    private = stage.here.root / ".git-sync"
    stage.here.server.stop()
    while private.exists():  # git may be writing to it
        shutil.rmtree(private, ignore_errors=True)
    say("stopped the git server, and deleted git-sync's repository on the volume")
    event = stage.daemon.wait_for_event("cycle_failed", consecutive_failures=2)
    check(stage.here.shown() == before, "the last good commit stays")
    check(stage.daemon.get("/readyz").status == 200, "/readyz stays 200")
    say(f"/readyz  200  reason={event['reason']}")
    stage.here.server.start()
    seconds = stage.wait_for(
        stage.here.repository.commit({"dags/after_the_outage.py": GOOD})
    )
    return Result(
        "the DAGs stayed; time: from the server's restart to its new commit", seconds
    )


def kill(stage: Stage) -> Result:
    """
    SIGKILL during a fetch, the locks that it leaves, and a SIGTERM at the end.
    """
    before = stage.here.shown()
    server = stage.here.server
    server.forget()
    server.inject(lambda exchange: exchange.hang(), is_pack, times=1)
    commit = stage.here.repository.commit({"dags/after_the_kill.py": GOOD})
    server.wait_for(is_pack)
    stage.daemon.kill()
    (stage.here.root / ".git-sync/.git/shallow.lock").touch()
    server.release()
    say("killed the wrapper during a fetch, and left a lock file behind")
    check(stage.here.shown() == before, "the last good commit stays")
    stage.daemon.start()
    seconds = stage.wait_for(commit)
    check(stage.daemon.terminate().code == 0, "SIGTERM ends it with 0")
    return Result(
        "the next start repaired it; time: from the start to the new commit", seconds
    )


def is_pack(request: Request) -> bool:
    """
    Whether a request fetches objects.
    """
    return b"command=fetch" in request.body


STEPS: tuple[Step[Stage], ...] = (
    ("new commits", good_commit),
    ("a bad commit", bad_commit),
    ("password rotation", password_is_rotated),
    ("remote outage", remote_is_down),
    ("SIGKILL", kill),
)


def play(home: Path) -> int:
    """
    Play all steps and return the exit code; if something is missing, print it and skip
    them.
    """
    if reason := skip_reason():
        script.heading(f"git-sync-wrapper: skipped: {reason}")
        return 0
    script.heading(
        "git-sync-wrapper: the real daemon, against a git server in this process"
    )
    home = home / "git"
    home.mkdir()
    password = home / "password"
    password.write_text("first password")
    with git_site(home) as here:
        here.repository.commit({"dags/sales.py": GOOD, "README.md": "# DAGs\n"})
        here.server.accept((USER, "first password"))
        daemon = here.wrapper(
            GITSYNC_USERNAME=USER,
            GITSYNC_PASSWORD_FILE=str(password),
            GIT_SYNC_WRAPPER_GATE="syntax",
        )
        return script.play(STEPS, Stage(here, daemon, password))
