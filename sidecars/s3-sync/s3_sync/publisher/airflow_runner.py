"""
Loads a folder of DAGs as Airflow's DAG processor does, with the Python of an Airflow
2.11, or 3.1 or later.

``python airflow_runner.py HOME``: HOME is an empty folder, which becomes AIRFLOW_HOME;
GATE_FOLDER in the environment is the folder to load. It imports nothing from s3-sync.
Each file is loaded in a process of its own, so that its mistakes cannot affect the next
one. They all have the same user, so malice can: it can write every answer.

At the end, one JSON object is written to the file ``answer`` in HOME: ``airflow``, its
version; ``dags``, how many there are; ``errors``, pairs of path and text. It is not
written if a file has no verdict, because of a signal, or of a failure of Airflow or of
this program: why is then the last line of standard error.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HOME = sys.argv[1]
FOLDER = os.environ["GATE_FOLDER"]
# The settings of Airflow that are never taken from the user, above all the database.
os.environ |= {
    "AIRFLOW_HOME": HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": FOLDER,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "50",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    # As in the DAG processor of Airflow 3: no Variable is read from a database.
    "_AIRFLOW_PROCESS_CONTEXT": "client",
}
# The folder of this program: its modules must not be imported. PYTHONSAFEPATH keeps it
# out since Python 3.11.
if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

import airflow
from airflow.configuration import conf
from airflow.plugins_manager import ensure_plugins_loaded
from airflow.serialization import serialized_objects
from airflow.utils import file

IS_2 = airflow.__version__.startswith("2.")
IS_BEFORE_3_4 = hasattr(file, "list_py_file_paths")
if IS_2:
    from airflow import settings
    from airflow.models.dagbag import DagBag
    from airflow.utils.db import initdb
else:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.execution_time.supervisor import block_orm_access
if not IS_BEFORE_3_4:
    from airflow.dag_processing.bundles.local import LocalDagBundle
    from airflow.sdk.importers import DagImportError, get_importer_registry

FORK = multiprocessing.get_context("fork")
BUNDLE = "dags"
# The ids of the DAGs in a file, and errors by path.
Loaded = tuple[list[str], dict[str, str]]


def dag_files() -> Any:
    """
    Return the files that Airflow's DAG processor would load.
    """
    if IS_BEFORE_3_4:
        return file.list_py_file_paths(FOLDER)
    bundle = LocalDagBundle(name=BUNDLE, path=FOLDER)
    is_safe = conf.getboolean("core", "dag_discovery_safe_mode")
    registry = get_importer_registry(BUNDLE)
    found = set()
    for _, one in registry.list_dag_definitions(bundle, safe_mode=is_safe):
        # An unreadable file has an error instead.
        is_error = isinstance(one, DagImportError)
        place = one.source_reference if is_error else one.get_relative_loc(bundle.path)
        # Each DAG in an archive has its own place.
        found.add(file.find_enclosing_file(Path(FOLDER, place)))
    return filter(None, found)


def load(path: str) -> Loaded:
    """
    Load one file, and serialize its DAGs, as Airflow would for its database.
    """
    if IS_2:
        bag = DagBag(path)
    else:
        block_orm_access()
        bag = DagBag(path, bundle_path=Path(FOLDER))
    # DagSerialization: 3.2 and later
    kind = (
        getattr(serialized_objects, "DagSerialization", None)
        or serialized_objects.SerializedDAG
    )
    errors = dict(bag.import_errors)
    for dag in bag.dags.values():
        try:
            json.dumps(kind.to_dict(dag), sort_keys=True)
        except Exception:  # noqa: BLE001 - as Airflow does
            errors[path] = traceback.format_exc()
    return list(bag.dags), errors


def _tell(path: str, sender: Connection) -> None:
    """
    Load one file, send what was loaded, or the text of a failure, and end this process.
    """
    try:
        sender.send(load(path))
    except Exception as error:  # noqa: BLE001 - Airflow itself reports what a file raises
        sender.send(f"{type(error).__name__}: {error}")
    except BaseException:  # noqa: BLE001 - except SystemExit and the like
        sender.send(([], {path: traceback.format_exc()}))
    finally:
        os._exit(0)


def load_apart(path: str, timeout_seconds: float) -> Loaded:
    """
    Load one file in a separate process, which is killed after the timeout.

    Raises:
        SystemExit: The file has no verdict.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_tell, args=(path, sender))
    child.start()
    sender.close()
    problem = f"loading it takes longer than dag_file_processor_timeout, {timeout_seconds:g} s"
    said: Loaded | str = ([], {path: problem})
    try:
        if receiver.poll(timeout_seconds):
            said = receiver.recv()
    except EOFError:
        child.join(timeout_seconds)
        said = ([], {path: "it ends the process that loads it"})
        code = child.exitcode or 0
        if code < 0:
            said = signal.Signals(-code).name
    child.kill()
    child.join()
    if isinstance(said, str):
        sys.exit(f"loading {path} failed: {said}")
    return said


def work() -> dict[str, Any]:
    """
    Load all files of the folder; return the answer.
    """
    if IS_2:  # a DAG file may query the database
        initdb(load_connections=False)
        settings.engine.dispose()  # children must not share a connection
    sys.path.append(FOLDER)  # at the end, as in Airflow
    ensure_plugins_loaded()
    paths = sorted(map(str, dag_files()))
    # What the files import of Airflow, once for all of them, as its DAG processor does.
    for name in {name for path in paths for name in file.iter_airflow_imports(path)}:
        with suppress(Exception):  # the file that imports it will report it
            import_module(name)
    # Airflow 3 takes it from [dag_processor], to which it has moved.
    seconds = conf.getfloat("core", "dag_file_processor_timeout")
    files: dict[str, str] = {}
    errors: list[Any] = []
    for path in paths:
        dags, found = load_apart(path, seconds)
        errors += found.items()
        errors += [
            (path, f"the DAG {dag!r} is also in {files[dag]}")
            for dag in dags
            if files.setdefault(dag, path) != path
        ]
    return {
        "airflow": airflow.__version__,
        "dags": len(files),
        "errors": [[one.replace(f"{FOLDER}/", "") for one in row] for row in errors],
    }


if __name__ == "__main__":
    Path(HOME, "answer").write_text(json.dumps(work()))
