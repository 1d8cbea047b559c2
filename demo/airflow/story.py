"""
The steps beside a real Airflow: releases, tickets, permissions, DAG versions, git.
"""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from werkzeug.security import generate_password_hash

from demo import releases, s3_sync
from demo.airflow import ticket
from demo.airflow.components import Components, Person
from demo.releases import SETTINGS, run_s3_sync, wait_for_release
from demo.script import Result, Step, check, say, seconds_until
from tests.support.airflow.databases import Database
from tests.support.airflow.installed import Airflow
from tests.support.airflow.permissions import (
    add_member,
    add_role,
    add_user,
    grant,
    grants_on,
)
from tests.support.airflow.sync_perm import SyncPerm
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import git_site, skip_reason
from tests.support.s3_sync.scripted import published

T = TypeVar("T")

DAGS = Path(__file__).with_name("dags")
MEMBER = "ada"
LIVE = "orders that are live"
FROM_GIT = "orders from git"
DEPLOY = "deploy"
DEPLOY_RIGHTS = (("can_read", "DAGs"), ("can_read", "ImportError"))
BROKEN = "sales_daily.py"
SYNTAX_ERROR = "\nwith DAG('sales_daily'\n    pass\n"
EDITIONS = ("first edition", "second edition")
ROLES = """\
roles:
  returns-team:
    dags:
      - folder: team-returns/**
        permissions: [can_read, can_edit]
"""
SIDECAR_SECONDS = 300.0
"""The longest wait for a sidecar beside an Airflow on a small machine."""


@dataclass
class Stage(s3_sync.Stage):
    """
    The objects that the steps act on; Airflow reads `current` in the volume as its DAG
    folder.
    """

    database: Database
    home: Path
    components: Components
    person: Person
    """A member of the role in the access_control of `sales_daily`."""
    realm: ticket.Warehouse | None
    """`None` if a requirement is missing."""
    others: dict[str, SidecarProcess] = field(default_factory=dict)
    """The running sidecars other than s3-sync, by program."""

    @property
    def folder(self) -> Path:
        return self.dags / "current"

    @property
    def checkout(self) -> Path:
        """
        The checkout of the DAG folder, in which the steps edit.
        """
        return releases.checkout_of(self)

    def run(self, daemon: SidecarProcess) -> SidecarProcess:
        """
        Start another sidecar.
        """
        daemon.patience_seconds = SIDECAR_SECONDS
        self.others[daemon.program.name] = self.stack.enter_context(daemon)
        return daemon

    def publish(self, *, fails: int = 0) -> None:
        """
        Publish the checkout; this Airflow is the gate.
        """
        python = str(self.components.airflow.bin / "python")
        gate = ("--gate", "airflow", "--airflow-python", python)
        run_s3_sync(self, "publish", "checkout", *gate, fails=fails)

    def until_airflow(self, condition: Callable[[], T | None], what: str) -> T:
        """
        Return the first true value of a condition that Airflow fulfills by parsing the
        folder.
        """
        return self.components.parser.wait_for(condition, f"Airflow: {what}")

    def one(self, sql: str, *arguments: object) -> str | None:
        """
        Return the first value that a query of Airflow's database finds.
        """
        rows = self.database.query(sql, arguments)
        return str(rows[0][0]) if rows else None

    def is_parsed(self, dag_id: str) -> bool:
        return bool(self.one("SELECT 1 FROM serialized_dag WHERE dag_id = %s", dag_id))

    def describe(self, text: str) -> None:
        """
        Change the description of `sales_daily` in the checkout.
        """
        path = self.checkout / BROKEN
        new = f'description="{text}"'
        path.write_text(re.sub('description=".*"', new, path.read_text()))

    def until_described(self, text: str) -> None:
        """
        Wait until this is the description of `sales_daily` in Airflow.
        """
        sql = "SELECT description FROM dag WHERE dag_id = 'sales_daily'"
        self.until_airflow(lambda: self.one(sql) == text, f"{text!r}")

    def until_parsed_again(self) -> None:
        """
        Wait until Airflow has read every file again.
        """
        now = self.one("SELECT clock_timestamp()")
        sql = "SELECT 1 FROM dag HAVING min(last_parsed_time) > %s"
        self.until_airflow(lambda: self.one(sql, now), "it reads the folder again")

    def has_import_error(self) -> bool:
        return self.one("SELECT filename FROM import_error") is not None

    def may(self, role: str, dag_id: str) -> bool:
        """
        Whether a role can read a DAG.
        """
        return (role, "can_read") in grants_on(self.database, f"DAG:{dag_id}")


def release_is_published(stage: Stage) -> Result:
    """
    Publish the DAGs; a new pod's daemon downloads them.
    """
    shutil.copytree(DAGS, stage.checkout, ignore=shutil.ignore_patterns("__pycache__"))
    stage.publish()
    began = time.monotonic()
    stage.start(releases.KEY_PATH, **SETTINGS)
    stage.daemon.patience_seconds = SIDECAR_SECONDS
    stage.daemon.wait_until_ready()
    seconds = time.monotonic() - began
    wait_for_release(stage)
    return Result("the DAGs of one release; includes the start of the process", seconds)


def ticket_appears(stage: Stage) -> Result:
    """
    The sidecar's first ticket; the service refuses clients without a ticket.
    """
    if stage.realm is None:
        return Result(
            f"missing {', '.join(ticket.missing())} (run make setup-test)", None
        )
    # Without --negotiate: with it, but without a ticket, curl 7.88 crashes half of the
    # time.
    command = ["curl", "--silent", stage.realm.of_tasks()["WAREHOUSE_URL"]]
    answer = subprocess.run(command, capture_output=True, text=True).stdout
    check(answer == "who are you? ", f"the service requires a ticket: {answer}")
    began = time.monotonic()
    stage.run(stage.realm.here.sidecar()).wait_until_ready()
    return Result(
        "a valid ticket; includes the start of the process", time.monotonic() - began
    )


def airflow_starts(stage: Stage) -> Result:
    """
    Start Airflow on the folder, as the kubelet does after a native sidecar has started.
    """
    began = time.monotonic()
    stage.components.start()
    stage.components.wait_until_answers()
    stage.until_airflow(
        lambda: stage.is_parsed("db_cleanup"), "the DAGs are in its database"
    )
    return Result("the DAGs are in its database", time.monotonic() - began)


@contextmanager
def parser_held(stage: Stage) -> Iterator[None]:
    """
    Keep Airflow 3 from fixing permissions itself, so that any change is made by
    sync-perm.

    Its dag-processor is stopped right after it has read every file: outside of a
    transaction.
    """
    if stage.components.airflow.is_3:
        stage.until_parsed_again()
        say(
            "stopped the dag-processor (SIGSTOP): its next parse would fix the permissions itself"
        )
        stage.components.parser.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            stage.components.parser.send_signal(signal.SIGCONT)
    else:
        yield


def role_comes_late(stage: Stage) -> Result:
    """
    A role is created after the DAG that names it; sync-perm grants, Airflow's API shows
    it.
    """
    roles = stage.home / "roles.yaml"
    roles.write_text(ROLES)
    settings = {"SYNC_PERM_INCLUDE_DAGS": "true", "SYNC_PERM_ROLES": str(roles)}
    airflow = stage.components.airflow
    home = stage.home / "sync-perm"
    daemon = stage.run(SyncPerm(airflow, stage.database.url, home, settings))
    failed = daemon.wait_for_event("dag_failed", SIDECAR_SECONDS, dag="sales_daily")
    say(f"dag_failed: sales_daily, {failed['reason']}: {failed['error']}")
    with parser_held(stage):
        add_role(stage.database, "team_sales")
        grant(stage.database, "team_sales", "can_edit", "DAG Runs")  # to clear runs
        add_member(stage.database, MEMBER, "team_sales")
        seconds = seconds_until(
            daemon,
            lambda: stage.may("team_sales", "sales_daily"),
            "team_sales is granted",
        )
        shown = lambda: stage.person.may_read("sales_daily")  # noqa: E731
        stage.components.web.wait_for(shown, "the API shows it")
    return Result(
        f"team_sales may read sales_daily; Airflow's API shows it to {MEMBER}", seconds
    )


def task_uses_ticket(stage: Stage) -> Result:
    """
    A member of the role triggers the DAG; its task calls the service with the ticket.
    """
    if stage.realm is None:
        return Result(
            f"missing {', '.join(ticket.missing())} (run make setup-test)", None
        )
    # Airflow 2 refuses a DAG whose role is missing, until its next parse.
    stage.until_airflow(lambda: not stage.has_import_error(), "no import error remains")
    began = time.monotonic()
    until_success(stage, "sales_daily", stage.person.trigger("sales_daily"))
    guests = stage.realm.guests
    check(
        guests == [stage.realm.here.principal],
        f"the service saw the principal: {guests}",
    )
    return Result(f"the service accepted {guests[0]}", time.monotonic() - began)


def until_success(stage: Stage, dag_id: str, run: str) -> None:
    """
    Wait until a run ends, and check that it succeeded.
    """

    def ended() -> str:
        state = stage.person.state_of(dag_id, run)
        return state if state in ("success", "failed") else ""

    state = stage.components.processes["scheduler"].wait_for(ended, f"{run} ends")
    logs = stage.home.glob(f"**/logs/**/dag_id={dag_id}/**/*.log")
    check(
        state == "success",
        "\n".join([state, *(path.read_text()[-1000:] for path in logs)]),
    )


def bad_release_is_refused(stage: Stage) -> Result:
    """
    A bad release is refused in CI and by the daemon; Airflow goes on with the good one.
    """
    path = stage.checkout / BROKEN
    good = published(stage.folder)
    content = path.read_text()
    path.write_text(content + SYNTAX_ERROR)
    stage.publish(fails=2)
    run_s3_sync(stage, "publish", "checkout")
    began = time.monotonic()
    event = stage.daemon.wait_for_event("revision_refused", path=BROKEN)
    seconds = time.monotonic() - began
    say(f"the daemon: refused {BROKEN}:{event['line']}: {event['problem']}")
    check(stage.daemon.get("/readyz").status == 200, "/readyz stays 200")
    stage.until_parsed_again()
    check(published(stage.folder) == good, "nothing of it is visible")
    check(not stage.has_import_error(), "Airflow has no import error")
    path.write_text(content)
    return Result(f"refused line {event['line']}; Airflow saw none of it", seconds)


def release_is_live(stage: Stage) -> Result:
    """
    CI waits until Airflow runs what it published: it fails with the traceback of a DAG
    that Airflow cannot import, and ends when a good release is live.
    """
    add_role(stage.database, DEPLOY)
    for right in DEPLOY_RIGHTS:
        grant(stage.database, DEPLOY, *right)
    hashed = generate_password_hash(DEPLOY, "pbkdf2:sha256")
    add_user(stage.database, DEPLOY, hashed)
    add_member(stage.database, DEPLOY, DEPLOY)
    settings = {
        "AIRFLOW_API_URL": stage.components.endpoint,
        "AIRFLOW_API_USERNAME": DEPLOY,
        "AIRFLOW_API_PASSWORD": DEPLOY,
    }
    path = stage.checkout / "db_cleanup.py"
    content = path.read_text()
    wait = ("publish", "checkout", "--wait")
    path.write_text(content + "\n1 / 0\n")
    said = run_s3_sync(stage, *wait, fails=4, settings=settings)
    check("ZeroDivisionError" in said, "it shows the traceback of db_cleanup.py")
    path.write_text(content)
    (stage.checkout / "new_one.py").write_text(content.replace("db_cleanup", "new_one"))
    stage.describe(LIVE)
    began = time.monotonic()
    run_s3_sync(stage, *wait, settings=settings)
    seconds = time.monotonic() - began
    sql = "SELECT dag_id, bundle_version FROM dag WHERE NOT is_stale"
    rows = stage.database.query(sql)
    check({stage.folder.readlink().name} == {row[1] for row in rows}, f"{rows}")
    check("new_one" in dict(rows), "the new DAG is there")
    check(not stage.has_import_error(), "Airflow has no import error")
    stage.until_described(LIVE)
    return Result("published, and every DAG is of the release in Airflow", seconds)


def run_keeps_its_version(stage: Stage) -> Result:
    """
    A release is published while the first of three tasks runs; the next run uses it.
    """
    began = time.monotonic()
    notes = stage.components.notes
    path = stage.checkout / "month_end.py"
    run = stage.person.trigger("month_end")
    scheduler = stage.components.processes["scheduler"]
    scheduler.wait_for(notes.exists, "the first task runs")
    path.write_text(path.read_text().replace(*EDITIONS))
    stage.publish()
    wait_for_release(stage)
    sql = "SELECT 1 FROM dag_version WHERE dag_id = 'month_end' AND bundle_version = %s"
    version = stage.folder.readlink().name
    stage.until_airflow(lambda: stage.one(sql, version), "the release")
    Path(f"{notes}.go").touch()
    until_month_end(stage, run, EDITIONS[0])
    notes.unlink()
    until_month_end(stage, stage.person.trigger("month_end"), EDITIONS[1])
    what = "published during the first task: that run kept the old release, the next used the new"
    return Result(what, time.monotonic() - began)


def until_month_end(stage: Stage, run: str, edition: str) -> None:
    """
    Wait until a run of `month_end` ends, and check which code its tasks executed.
    """
    until_success(stage, "month_end", run)
    noted = stage.components.notes.read_text().splitlines()
    say(f"the tasks of {run} wrote: {', '.join(noted)}")
    check(
        noted == [f"{task}: {edition}" for task in ("collect", "check", "close")],
        edition,
    )


def old_run_is_cleared(stage: Stage) -> Result:
    """
    The run of the old release is cleared when the volume has only the new release.
    """
    sql = "SELECT run_id, bundle_version FROM dag_run WHERE dag_id = 'month_end' ORDER BY id"
    run, version = stage.database.query(sql)[0]
    stage.daemon.terminate()
    stage.start(
        releases.KEY_PATH, **SETTINGS, S3_SYNC_RETAIN_COUNT="0", S3_SYNC_RETAIN_FOR="0s"
    )
    stage.daemon.patience_seconds = SIDECAR_SECONDS
    old = stage.folder.resolve().with_name(version)
    stage.daemon.wait_for(lambda: not old.exists(), "the old release leaves the volume")
    say(
        f"{run} began with {version}, which is only in the bucket now; {MEMBER} clears it"
    )
    stage.components.notes.unlink()
    began = time.monotonic()
    stage.person.clear("month_end", run)
    until_month_end(stage, run, EDITIONS[0])
    check(
        old.exists(),
        "the bundle requested the old release, and the daemon downloaded it",
    )
    return Result(
        "the cleared run used its old release, from the bucket",
        time.monotonic() - began,
    )


def folder_becomes_a_grant(stage: Stage) -> Result:
    """
    A new DAG in the folder that the roles file grants to a team.
    """
    daemon = stage.others["sync-perm"]
    dag_id = "returns_weekly"
    say("the roles file of sync-perm:\n" + ROLES)
    path = stage.checkout / "team-returns" / "weekly.py"
    path.parent.mkdir()
    path.write_text((DAGS / "db_cleanup.py").read_text().replace("db_cleanup", dag_id))
    stage.publish()
    wait_for_release(stage)
    stage.until_airflow(lambda: stage.is_parsed(dag_id), "the new DAG")
    seconds = seconds_until(
        daemon, lambda: stage.may("returns-team", dag_id), "the team is granted"
    )
    granted = grants_on(stage.database, f"DAG:{dag_id}")
    check(
        {("returns-team", "can_read"), ("returns-team", "can_edit")} == granted,
        "no other role",
    )
    check(not stage.may("returns-team", "db_cleanup"), "no DAG outside the folder")
    return Result(
        "returns-team can read and edit it; time: from Airflow's parse", seconds
    )


def folder_comes_from_git(stage: Stage) -> Result:
    """
    git-sync-wrapper takes over the volume; Airflow is not restarted.
    """
    if reason := skip_reason():
        return Result(reason, None)
    site = stage.stack.enter_context(git_site(stage.home))
    stage.describe(FROM_GIT)
    commit = site.repository.commit(published(stage.checkout))
    check(stage.daemon.terminate().code == 0, "SIGTERM ends s3-sync with 0")
    root = str(stage.dags)
    daemon = stage.run(site.describe(GITSYNC_ROOT=root, GITSYNC_LINK="current"))
    seconds = seconds_until(
        daemon, lambda: stage.folder.resolve().name == commit, "the commit is shown"
    )
    stage.until_described(FROM_GIT)
    check(not stage.has_import_error(), "Airflow has no import error")
    check(stage.person.may_read("sales_daily"), "Airflow's API still shows the DAG")
    return Result("Airflow reads the commit; time: from the start to the link", seconds)


def sidecars_end(stage: Stage) -> Result:
    """
    SIGTERM to all running sidecars.
    """
    sidecars = {"s3-sync": stage.daemon, **stage.others}
    ended = {
        name: daemon.terminate()
        for name, daemon in sidecars.items()
        if daemon.is_running()
    }
    check(not any(end.code for end in ended.values()), f"all end with 0: {ended}")
    said = ", ".join(
        f"{name} {end.seconds * 1000:.0f} ms" for name, end in ended.items()
    )
    return Result(said, max(end.seconds for end in ended.values()))


DAG_VERSIONS: tuple[Step[Stage], ...] = (
    ("a pipeline that waits", release_is_live),
    ("a run keeps its version", run_keeps_its_version),
    ("a rerun on the old release", old_run_is_cleared),
)
BEGINNING: tuple[Step[Stage], ...] = (
    ("first release", release_is_published),
    ("first ticket", ticket_appears),
    ("Airflow starts", airflow_starts),
    ("a role created late", role_comes_late),
    ("a task with a ticket", task_uses_ticket),
    ("a bad release", bad_release_is_refused),
)
END: tuple[Step[Stage], ...] = (
    ("a folder for a team", folder_becomes_a_grant),
    ("git", folder_comes_from_git),
    ("SIGTERM", sidecars_end),
)


def steps(airflow: Airflow) -> tuple[Step[Stage], ...]:
    """
    Return the steps beside one Airflow; Airflow 2 has no DAG versions.
    """
    return (*BEGINNING, *(DAG_VERSIONS if airflow.is_3 else ()), *END)
