"""
Create a bundle and run the commands from standard input on it; run by Airflow's Python.

A line is JSON, `{"do": "initialize" or "refresh", "class": ..., "kwargs": ...}`; the
answer has the CPU and the wall seconds of the call, including children. `initialize`
creates a new bundle, as the dag-processor does at its start, and every task; the first
call also imports the class.
"""

import json
import resource
import sys
import time
from importlib import import_module
from typing import Any


def cpu_seconds() -> float:
    """
    Return the CPU seconds of this process and its children so far.
    """
    used = [
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """
    Serve until standard input ends.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # Airflow logs there
    # Airflow imports it before any bundle
    import_module("airflow.dag_processing.bundles.base")
    bundle: Any = None
    for line in sys.stdin:
        wanted = json.loads(line)
        module, _, name = wanted["class"].rpartition(".")
        cpu = cpu_seconds()
        wall = time.perf_counter()
        made = getattr(import_module(module), name)
        if wanted["do"] == "initialize":
            bundle = made(name="bench", **wanted["kwargs"])
            bundle.initialize()
        else:
            bundle.refresh()
        cost = [cpu_seconds() - cpu, time.perf_counter() - wall]
        version = bundle.get_current_version()
        answer = {"cost": cost, "path": str(bundle.path), "version": _text(version)}
        print(json.dumps(answer), file=answers, flush=True)


def _text(version: Any) -> str | None:
    text = getattr(version, "version", version)
    return None if text is None else str(text)


if __name__ == "__main__":
    main()
