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
    The sidecar's first ticket; the service refuses who has none.
    """
    if stage.realm is None:
        return left_out()
    url = stage.realm.of_tasks()["WAREHOUSE_URL"]
    # Without --negotiate: with it, and without a ticket, curl 7.88 crashes half of the time.
    command = ["curl", "--silent", "--write-out", "%{http_code}", url]
    answer = subprocess.run(command, capture_output=True, text=True).stdout
    check(answer.endswith("401"), f"the service wants a ticket: {answer}")
    say(f"$ curl {url}, without a ticket: {answer.strip()}")
    began = time.monotonic()
    own = {"KERBEROS_HTTP_BIND": "127.0.0.1:0", "HOME": str(stage.home)}
    daemon = stage.start("kerberos-sidecar", stage.realm.settings | own)
    stage.wait(daemon, lambda: daemon.readiness()["ready"], "/readyz answers 200")
    seconds = time.monotonic() - began
    return Result("a valid ticket when /readyz said 200; start of the process included", seconds)


def task_uses_it(stage: Stage) -> Result:
    """
    A user with the role triggers the DAG; its task talks to the service.
    """
    if stage.realm is None:
        return left_out()
    stage.wait_until_airflow(lambda: not stage.import_errors(), "the missing role is forgotten")
    scheduler = stage.concerned = stage.components.processes["scheduler"]
    began = time.monotonic()
    run = stage.person.trigger("sales_daily")
    say(f"triggered through Airflow's API, by a member of team_sales: {run}")
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
        f"the service let in {kerberos.PRINCIPAL}; time is from the trigger to the end of the run, "
        "all of it Airflow's",
        seconds,
    )


def left_out() -> Result:
    """
    Return what a step says on a machine that lacks something for it.
    """
    return Result(f"left out: this machine lacks {', '.join(missing())} (make setup-test)", None)


def logs_of_task(stage: Stage) -> str:
    """
    Return the end of what the task has said.
    """
    texts = [path.read_text() for path in stage.home.glob("**/logs/**/dag_id=sales_daily/**/*.log")]
    return "\n".join(texts)[-2000:]
