"""
The steps of sync-perm: roles and DAG permissions in the metadata of a real Airflow.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

from demo.airflow.releases import DAGS, gate_of, wait_for_parse
from demo.airflow.stage import SIDECAR_SECONDS, Stage
from demo.console import say
from demo.daemon import Daemon
from demo.releases import run_s3_sync, wait_for_release
from demo.script import Result, check
from tests.support.airflow.permissions import (
    add_member,
    add_role,
    grant,
    grants_on,
    log_rows,
    revoke,
)
from tests.support.airflow.sync_perm import cpu_seconds
from tests.support.waiting import wait_until

PROGRAM = "sync-perm"
QUIET_POLLS = 10
UNCHANGED = 'sidecar_cycles_total{result="unchanged",sidecar="sync-perm"}'
MEMBER = "ada"
ROLES = """\
roles:
  returns-team:
    dags:
      - folder: team-returns/**
        permissions: [can_read, can_edit]
"""


def loop_does_not_help(stage: Stage) -> Result:
    """
    One run of the command of the shell loop, after a role was created.
    """
    add_role(stage.database, "team_stock")
    say("an administrator created the role team_stock, which stock_hourly's access_control lists")
    if stage.airflow.version == "3":
        return Result("skipped: Airflow 3 fixes DAG permissions itself, at its next parse", None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    stage.airflow.run(stage.database, stage.home / "by-hand", "airflow", "sync-perm")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    check(not may(stage, "team_stock", "stock_hourly"), "airflow sync-perm ignores DAGs")
    return Result(
        f"airflow sync-perm took {cpu:.1f} s of CPU; team_stock still cannot read stock_hourly",
        time.monotonic() - began,
    )


def sidecar_starts(stage: Stage) -> Result:
    """
    The sidecar finds the difference and fixes it; it reports the DAG that it cannot sync.
    """
    settings = {
        "INTERVAL": "1",
        "SYNC_PERM_INCLUDE_DAGS": "true",
        "SYNC_PERM_HTTP_BIND": "127.0.0.1:0",
    }
    home = stage.home / "sync-perm"
    (home / "tmp").mkdir(parents=True)
    roles = home / "roles.yaml"
    roles.write_text(ROLES)
    settings["SYNC_PERM_ROLES"] = str(roles)
    began = time.monotonic()
    environment = stage.airflow.environment(stage.database.url, home)
    daemon = stage.start(PROGRAM, {**environment, "TMPDIR": str(home / "tmp"), **settings})
    stage.wait(daemon, lambda: may(stage, "team_stock", "stock_hourly"), "team_stock is granted")
    seconds = time.monotonic() - began
    failed = stage.wait(
        daemon, lambda: daemon.find_event("dag_failed", dag="sales_daily"), "the DAG is reported"
    )
    say(f"dag_failed: sales_daily, {failed['reason']}: {failed['error']}")
    return Result("team_stock can read stock_hourly; includes the process start", seconds)


def role_comes_late(stage: Stage) -> Result:
    """
    The role of `sales_daily` is created after the DAG.
    """
    daemon = stage.daemons[PROGRAM]
    with parser_held(stage):
        return grant_late(stage, daemon)


def grant_late(stage: Stage, daemon: Daemon) -> Result:
    """
    Create the role; wait for the grant, and until its member sees the DAG.
    """
    ended = events_of(daemon, "pass_finished")
    with daemon.held():
        add_role(stage.database, "team_sales")
        add_member(stage.database, MEMBER, "team_sales")
        refused = not stage.person.may_read("sales_daily")
        check(refused, "without sync-perm a member of the role does not see the DAG")
    say(f"created the role team_sales; Airflow's API denies its member {MEMBER} sales_daily")
    began = time.monotonic()
    stage.wait(daemon, lambda: may(stage, "team_sales", "sales_daily"), "team_sales is granted")
    seconds = time.monotonic() - began
    stage.wait(
        stage.components.web, lambda: stage.person.may_read("sales_daily"), "the API shows it"
    )
    visible = time.monotonic() - began
    actions = sorted(action for _, action in grants_on(stage.database, "DAG:sales_daily"))
    check(actions == ["can_edit", "can_read"], f"exactly the declared grants: {actions}")
    stage.wait(daemon, lambda: events_of(daemon, "pass_finished") > ended, "the pass ends")
    passed = daemon.find_event("pass_finished") or {}
    return Result(
        f"team_sales has {' and '.join(actions)} on sales_daily; {MEMBER} sees it in Airflow's API "
        f"after {visible:.1f} s; Airflow's own code took {passed['cpu_seconds']:.1f} s of CPU",
        seconds,
    )


def grants_are_edited(stage: Stage) -> Result:
    """
    A grant that access_control declares is removed; another is added to a DAG without it.
    """
    daemon = stage.daemons[PROGRAM]
    add_role(stage.database, "auditors")
    grant(stage.database, "auditors", "can_read", "DAG:db_cleanup")
    with parser_held(stage):
        began = time.monotonic()
        revoke(stage.database, "Viewer", "can_edit", "DAG:stock_hourly")
        stage.wait(
            daemon,
            lambda: ("Viewer", "can_edit") in grants_on(stage.database, "DAG:stock_hourly"),
            "the removed grant is restored",
        )
        seconds = time.monotonic() - began
    check(may(stage, "auditors", "db_cleanup"), "a DAG without access_control is not changed")
    return Result(
        "restored the removed grant; did not touch the one on a DAG without access_control", seconds
    )


def folder_becomes_a_grant(stage: Stage) -> Result:
    """
    A new DAG in the folder that the roles file grants to a team.
    """
    daemon, dag_id = stage.daemons[PROGRAM], "returns_weekly"
    say("the roles file of sync-perm:")
    for line in ROLES.splitlines():
        say(f"  {line}")
    path = stage.checkout / "team-returns" / "weekly.py"
    path.parent.mkdir()
    path.write_text((DAGS / "db_cleanup.py").read_text().replace("db_cleanup", dag_id))
    run_s3_sync(stage, "publish", "checkout", *gate_of(stage))
    wait_for_release(stage)
    stage.wait_until_airflow(lambda: stage.description_of(dag_id), "the new DAG")
    began = time.monotonic()
    stage.wait(daemon, lambda: may(stage, "returns-team", dag_id), "the team is granted")
    seconds = time.monotonic() - began
    granted = grants_on(stage.database, f"DAG:{dag_id}")
    check({("returns-team", "can_read"), ("returns-team", "can_edit")} == granted, "no other role")
    check(not may(stage, "returns-team", "db_cleanup"), "no DAG outside the folder")
    return Result(
        f"{dag_id} in team-returns/: returns-team can read and edit it; time: from Airflow's"
        " parse to the grant",
        seconds,
    )


def nothing_changes(stage: Stage) -> Result:
    """
    The idle cost of the sidecar while Airflow runs beside it.
    """
    daemon = stage.daemons[PROGRAM]
    seen = daemon.metric(UNCHANGED)
    stage.wait(daemon, lambda: daemon.metric(UNCHANGED) > seen, "a poll finds nothing to do")
    began, rows = time.monotonic(), log_rows(stage.database)
    passes = events_of(daemon, "pass_started")
    first, before = daemon.metric(UNCHANGED), cpu_seconds(daemon.pid)
    wait_until(  # with a long step: reading the metric costs more than a poll
        lambda: daemon.metric(UNCHANGED) >= first + QUIET_POLLS,
        "ten polls",
        SIDECAR_SECONDS,
        step_seconds=QUIET_POLLS + 1,
    )
    cpu = (cpu_seconds(daemon.pid) - before) / (daemon.metric(UNCHANGED) - first)
    check(rows == log_rows(stage.database), "no row is written to the audit log")
    check(passes == events_of(daemon, "pass_started"), "no Airflow is started")
    return Result(
        f"{QUIET_POLLS} polls of {cpu * 1000:.1f} ms of CPU; no write, no start of Airflow",
        time.monotonic() - began,
    )


@contextmanager
def parser_held(stage: Stage) -> Iterator[None]:
    """
    Keep Airflow 3 from fixing permissions itself, so that any change is made by sync-perm.

    Its dag-processor is stopped right after it has read every file: outside of a transaction.
    """
    if stage.airflow.version != "3":
        yield
        return
    wait_for_parse(stage)
    say("stopped the dag-processor (SIGSTOP): its next parse would fix the permissions itself")
    with stage.components.parser.held():
        yield


def events_of(daemon: Daemon, name: str) -> int:
    """
    Return how often an event is in the log so far.
    """
    return sum(f'"event": "{name}"' in line for line in daemon.lines())


def may(stage: Stage, role: str, dag_id: str) -> bool:
    """
    Whether a role can read a DAG.
    """
    return (role, "can_read") in grants_on(stage.database, f"DAG:{dag_id}")
