"""
The last steps: Airflow ends, its database stops and restarts, the sidecars end.
"""

from __future__ import annotations

import time

from demo.airflow.stage import Stage
from demo.console import say
from demo.script import Result


def database_goes_away(stage: Stage) -> Result:
    """
    The database stops and restarts. Airflow's own processes end first: they would not survive it.
    """
    daemon = stage.daemons["sync-perm"]
    say(f"stopped Airflow's own processes: {stage.components.stop():.1f} s after SIGTERM")
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
        "one log line per failure, automatic recovery; time: from the database's restart",
        time.monotonic() - began,
    )


def sidecars_end(stage: Stage) -> Result:
    """
    SIGTERM to all running sidecars.
    """
    began = time.monotonic()
    for program in list(stage.daemons):
        stage.end(program)
    said = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in stage.ended.items())
    return Result(f"all exited with code 0: {said}", time.monotonic() - began)
