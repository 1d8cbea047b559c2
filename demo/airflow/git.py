"""
The steps with git: git-sync-wrapper takes over the DAG folder.
"""

from __future__ import annotations

import time

from demo.airflow.releases import BROKEN, FIRST, SYNTAX_ERROR, shared, wait_for_parse
from demo.airflow.stage import Stage
from demo.console import say
from demo.git_sync_wrapper import settings_for
from demo.s3_sync import files_in
from demo.script import Result, check
from tests.support.git.git_repository import Repository
from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import skip_reason

PROGRAM = "git-sync-wrapper"
THIRD = "orders from git"


def folder_comes_from_git(stage: Stage) -> Result:
    """
    s3-sync ends and git-sync-wrapper takes over its volume; Airflow is not restarted.
    """
    if skip_reason():
        return left_out()
    server = stage.stack.enter_context(GitServer(stage.home / "remote"))
    stage.repository = server.repository()
    stage.describe(FIRST)
    commit = commit_checkout(stage.repository, stage)
    stage.end("s3-sync")
    settings = settings_for(server.url(), stage.home) | {
        "GITSYNC_ROOT": str(stage.dags),
        "GITSYNC_LINK": stage.folder.name,
    }
    began = time.monotonic()
    daemon = stage.start(PROGRAM, settings)
    say("stopped s3-sync; started git-sync-wrapper on its volume")
    say(f"GITSYNC_ROOT={settings['GITSYNC_ROOT']} GITSYNC_LINK={settings['GITSYNC_LINK']}")
    stage.wait(daemon, lambda: shown(stage) == commit, "the commit is shown")
    seconds = time.monotonic() - began
    wait_for_parse(stage)
    check(stage.import_errors() == [], "Airflow has no import error")
    check(stage.person.may_read("sales_daily"), "Airflow's API still shows the DAG")
    return Result(
        "Airflow kept running and reads the commit; time: from the process start to the commit in "
        "the folder",
        seconds,
    )


def commits_follow(stage: Stage) -> Result:
    """
    A bad commit is refused, the next good one is published.
    """
    if stage.repository is None:
        return left_out()
    daemon, path = stage.daemons[PROGRAM], stage.checkout / BROKEN
    content, before = path.read_text(), shown(stage)
    path.write_text(content + SYNTAX_ERROR)
    bad = commit_checkout(stage.repository, stage)
    event = stage.wait(
        daemon, lambda: daemon.find_event("revision_refused", revision=bad), "it is refused"
    )
    say(f"revision_refused: {event['path']}, line {event['line']}: {event['problem']}")
    check(daemon.readiness()["code"] == 200, "/readyz stays 200")
    wait_for_parse(stage)
    check(shown(stage) == before, "the last good commit stays")
    check(stage.import_errors() == [], "Airflow has no import error")
    path.write_text(content)
    stage.describe(THIRD)
    began = time.monotonic()
    good = commit_checkout(stage.repository, stage)
    stage.wait(daemon, lambda: shown(stage) == good, "the good commit is shown")
    ours = time.monotonic() - began
    theirs = stage.wait_for_description(THIRD)
    what = f"refused {event['path']}:{event['line']}, the last good commit stayed; the fix"
    return shared(what, ours, theirs)


def commit_checkout(repository: Repository, stage: Stage) -> str:
    """
    Commit the whole checkout and return the hash.
    """
    return repository.commit(files_in(stage.checkout), whole=True)


def shown(stage: Stage) -> str:
    """
    Return the commit that the folder shows.
    """
    return stage.folder.resolve().name


def left_out() -> Result:
    """
    Return the result of a step on a machine without git.
    """
    return Result(f"skipped: {skip_reason()}", None)
