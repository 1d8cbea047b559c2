"""
The steps with a ticket: the kerberos sidecar acquires it, a task of Airflow uses it.
"""

from __future__ import annotations

import subprocess
import time

from demo import kerberos
from demo.airflow.realm import missing
from demo.airflow.stage import Stage
from demo.console import say
from demo.script import Result, check


def ticket_appears(stage: Stage) -> Result:
    """
    The sidecar's first ticket; the service refuses clients without a ticket.
    """
    if stage.realm is None:
        return left_out()
    url = stage.realm.of_tasks()["WAREHOUSE_URL"]
    # Without --negotiate: with it, but without a ticket, curl 7.88 crashes half of the time.
    command = ["curl", "--silent", "--write-out", "%{http_code}", url]
    answer = subprocess.run(command, capture_output=True, text=True).stdout
    check(answer.endswith("401"), f"the service requires a ticket: {answer}")
    say(f"$ curl {url}, without a ticket: {answer.strip()}")
    began = time.monotonic()
    own = {"KERBEROS_HTTP_BIND": "127.0.0.1:0", "HOME": str(stage.home)}
    daemon = stage.start("kerberos-sidecar", stage.realm.settings | own)
    stage.wait(daemon, lambda: daemon.readiness()["ready"], "/readyz answers 200")
    seconds = time.monotonic() - began
    return Result("/readyz returned 200 with a valid ticket; includes the process start", seconds)


def task_uses_it(stage: Stage) -> Result:
    """
    A user with the role triggers the DAG; its task calls the service.
    """
    if stage.realm is None:
        return left_out()
    stage.wait_until_airflow(lambda: not stage.import_errors(), "no import error remains")
    scheduler = stage.concerned = stage.components.processes["scheduler"]
    began = time.monotonic()
    run = stage.person.trigger("sales_daily")
    say(f"a member of team_sales triggered a run through Airflow's API: {run}")
    ends = ("success", "failed")
    state = stage.wait(
        scheduler,
        lambda: (now := stage.person.state_of("sales_daily", run)) in ends and now,
        "the run ends",
    )
    seconds = time.monotonic() - began
    check(state == "success", f"the task succeeds: {logs_of_task(stage)}")
    check(stage.realm.warehouse.guests == [kerberos.PRINCIPAL], "the service saw the principal")
    return Result(
        f"the service accepted {kerberos.PRINCIPAL}; time: from the trigger to the end of the run, "
        "all of it Airflow's",
        seconds,
    )


def left_out() -> Result:
    """
    Return the result of a step whose requirements are missing.
    """
    return Result(f"skipped: missing {', '.join(missing())} (run make setup-test)", None)


def logs_of_task(stage: Stage) -> str:
    """
    Return the end of the task's logs.
    """
    texts = [path.read_text() for path in stage.home.glob("**/logs/**/dag_id=sales_daily/**/*.log")]
    return "\n".join(texts)[-2000:]
