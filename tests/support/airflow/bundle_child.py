"""
Runs a command on a DAG bundle for each line of standard input; run by Airflow's Python.

A command is a line of JSON: `{"do": ..., "name": ..., ...}`. So is its answer, with
`value` or `error`.
"""

import gc
import json
import os
import sys
import threading
from typing import Any

from airflow.dag_processing.bundles.base import (
    BundleUsageTrackingManager,
    BundleVersionLock,
    TrackedBundleVersionInfo,
    get_bundle_tracking_file,
)
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow_sidecar_bundle import SidecarDagBundle

BUNDLES: dict[str, Any] = {}
PYTHON_PATH = list(sys.path)


def do(what: str, name: str, **given: Any) -> Any:
    """
    Run a command on the bundle with this name; return its result.
    """
    match what:
        case "new":
            BUNDLES[name] = SidecarDagBundle(name=name, refresh_interval=5, **given)
            return None
        case "configured":
            BUNDLES[name] = DagBundlesManager().get_bundle(name, **given)
            return None
        case "drop":
            del BUNDLES[name]
            gc.collect()
            return None
        case "version":
            version = BUNDLES[name].get_current_version()
            return getattr(version, "version", version)
        case "path":
            return str(BUNDLES[name].path)
        case "storm":
            return storm(name, **given)
        case "python_path":
            sys.path[:] = [*PYTHON_PATH, *given["folders"]]
            return None
        case "clean_up":
            return clean_up(name, **given)
        case _:
            return getattr(BUNDLES[name], what)()


def storm(name: str, path: str, versions: list[str], calls: int) -> list[str]:
    """
    Initialize bundles of these versions concurrently, a thread per call; return the
    problems.
    """
    wrong: list[str] = []

    def work(version: str) -> None:
        try:
            bundle = SidecarDagBundle(
                name=name,
                refresh_interval=5,
                path=path,
                version=version,
                wait_seconds=240,
            )
            bundle.initialize()
            marks = {file.read_text() for file in bundle.path.rglob("mark*.py")}
            if bundle.path.name != version or len(marks) != 1:
                wrong.append(f"{version}: {bundle.path}, {marks}")
        except Exception as error:  # noqa: BLE001 - every problem is reported
            wrong.append(f"{version}: {error}")

    workers = [
        threading.Thread(target=work, args=(versions[number % len(versions)],))
        for number in range(calls)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong


def clean_up(name: str, version: str) -> bool:
    """
    Remove an unused version as Airflow's scheduler does; return whether it is
    untracked.
    """
    with BundleVersionLock(name, version):
        pass
    tracked = get_bundle_tracking_file(name, version)
    BundleUsageTrackingManager()._remove_stale_bundle(
        name, TrackedBundleVersionInfo(lock_file_path=tracked, version=version, dt=None)
    )
    return not tracked.exists()


def main() -> None:
    """
    Answer commands until standard input ends.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow logs to standard output
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"value": do(command.pop("do"), command.pop("name"), **command)}
        except Exception as error:  # noqa: BLE001 - the test decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
