"""
The last step: the sidecars end.
"""

from __future__ import annotations

import time

from demo.airflow.stage import Stage
from demo.script import Result


def sidecars_end(stage: Stage) -> Result:
    """
    SIGTERM to all that still run.
    """
    began = time.monotonic()
    for program in list(stage.daemons):
        stage.end(program)
    said = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in stage.ended.items())
    return Result(f"exit code 0 each: {said}", time.monotonic() - began)
