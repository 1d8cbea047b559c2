"""
Makes a bundle and does with it what each line of standard input says; run by Airflow's Python.

A line is JSON, `{"do": "initialize" or "refresh", "class": ..., "kwargs": ...}`; the answer is the
CPU and the wall seconds that it took, with its children. `initialize` makes a new bundle, as the
start of the dag-processor and of every task does; the first one imports its class, too.
"""

import json
import resource
import sys
import time
from importlib import import_module
from typing import Any


def cpu_seconds() -> float:
    """
    Return what this process and its children have spent so far.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """
    Serve until standard input ends.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # Airflow logs there
    import_module("airflow.dag_processing.bundles.base")  # which is there before any bundle
    bundle: Any = None
    for line in sys.stdin:
        wanted = json.loads(line)
        module, _, name = wanted["class"].rpartition(".")
        cpu, wall = cpu_seconds(), time.perf_counter()
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
