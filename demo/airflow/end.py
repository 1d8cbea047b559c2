"""
The last steps: Airflow ends, its database goes away and comes back, the sidecars end.
"""

from __future__ import annotations

import time

from demo.airflow.stage import Stage
from demo.console import say
from demo.script import Result


def database_goes_away(stage: Stage) -> Result:
    """
    The database stops and comes back, after Airflow's own processes, which would not bear it.
    """
    daemon = stage.daemons["sync-perm"]
    say(f"Airflow's own processes end first: {stage.components.stop():.1f} s after SIGTERM")
    stage.server.stop()
    failed = stage.wait(
        daemon,
        lambda: daemon.find_event("cycle_failed", reason="database_unreachable"),
        "the cycle fails",
    )
    say(f"cycle_failed: {failed['reason']}; /readyz {daemon.get('/readyz')[0]}")
    stage.server.start()
    began = time.monotonic()
    stage.wait(daemon, lambda: daemon.readiness()["reason"] is None, "it recovers")
    return Result(
        "one line a failure, and back by itself; time is from the database's return",
        time.monotonic() - began,
    )


def sidecars_end(stage: Stage) -> Result:
    """
    SIGTERM to all that still run.
    """
    began = time.monotonic()
    for program in list(stage.daemons):
        stage.end(program)
    said = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in stage.ended.items())
    return Result(f"exit code 0 each: {said}", time.monotonic() - began)
