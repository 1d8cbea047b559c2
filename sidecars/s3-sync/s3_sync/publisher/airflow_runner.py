"""
Loads a folder of DAGs as Airflow does: ``python runner.py HOME``, with the Python of an Airflow.

It imports nothing from s3-sync, and works with Airflow 2.7 to 3 on Python 3.8 and later. HOME is
an empty folder, which becomes AIRFLOW_HOME; GATE_FOLDER in the environment is the folder to load.

Each file is loaded in a separate process, as in Airflow's DAG processor, so that it cannot affect
the next file. One JSON object per line is written to the file ``answers`` in HOME:

- ``{"missing": text}`` and nothing else if Airflow cannot be imported;
- ``{"airflow": version}``;
- ``{"file": path, "dags": [id, …], "errors": {path: traceback or error}}`` for each file, and for
  each plugin of the folder and each ``.airflowignore`` that Airflow cannot read, or
  ``{"file": path, "ended": code}`` if it ended its process (a signal is negative), or
  ``{"file": path, "failed": error}`` if Airflow or this program failed;
- ``{"done": number of files}`` at the end.

Output of Airflow and of the files goes to the output of this program.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

BAGS = ("airflow.dag_processing.dagbag", "airflow.models.dagbag")  # 3.1 and later; before
SERIALIZERS = ("DagSerialization", "SerializedDAG")  # 3.2 and later; before
BUNDLE = "dags"


def environment(home: str, folder: str) -> dict[str, str]:
    """
    Return the settings of Airflow that are never taken from the user, above all the database.
    """
    return {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": folder,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACKS": "True",
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "50",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # As in the DAG processor of Airflow 3: no Variable is read from a database.
        "_AIRFLOW_PROCESS_CONTEXT": "client",
    }


def first_of(names: Sequence[str], load: Callable[[str], Any]) -> Any:
    """
    Return the first of these names that this Airflow has, loaded.
    """
    for name in names[:-1]:
        try:
            return load(name)
        except (ImportError, AttributeError):
            pass
    return load(names[-1])


class Loader:
    """
    Loads files one by one, and serializes their DAGs, as Airflow would for its database.
    """

    def __init__(self, folder: str) -> None:
        objects = importlib.import_module("airflow.serialization.serialized_objects")
        self._serialize = first_of(SERIALIZERS, lambda name: getattr(objects, name).to_dict)
        self._bag_of = first_of(BAGS, lambda name: importlib.import_module(name).DagBag)
        known = inspect.signature(self._bag_of).parameters
        wanted = {
            "include_examples": False,
            "load_op_links": False,
            "bundle_path": Path(folder),
            "bundle_name": BUNDLE,
        }
        self._options = {name: value for name, value in wanted.items() if name in known}

    def load(self, path: str) -> dict[str, Any]:
        """
        Load one file; return the ids of its DAGs, and its errors.
        """
        bag = self._bag_of(path, **self._options)
        errors, dags = dict(bag.import_errors), []
        for dag in bag.dags.values():
            if getattr(dag, "parent_dag", None) is not None:
                continue  # a SubDAG is part of its DAG
            try:
                json.dumps(self._serialize(dag), sort_keys=True)
                dags.append(dag.dag_id)
            except Exception:  # noqa: BLE001 - as Airflow does
                errors[path] = traceback.format_exc()
        if not os.path.isfile(path):
            errors[path] = "it no longer exists: a file of the folder deletes it when it is loaded"
        return {"file": path, "dags": dags, "errors": errors}


def load_apart(
    loader: Loader,
    path: str,
    answers: int,
    answer: Callable[[dict[str, Any]], None],
    timeout_seconds: float,
) -> None:
    """
    Load one file in a separate process, which is killed after the timeout.
    """
    size_bytes = os.fstat(answers).st_size
    is_late = False
    pid = os.fork()
    if pid == 0:
        try:
            close_database()
            answer(loader.load(path))
        except Exception as error:  # noqa: BLE001 - Airflow itself reports what a file raises
            answer({"file": path, "failed": f"{type(error).__name__}: {error}"})
        except BaseException:  # noqa: BLE001 - except SystemExit and the like
            answer({"file": path, "dags": [], "errors": {path: traceback.format_exc()}})
        finally:
            os._exit(0)

    def kill(*_: object) -> None:
        nonlocal is_late
        is_late = True
        with suppress(ProcessLookupError):  # it ended at the same moment
            os.kill(pid, signal.SIGKILL)

    # Only while a child runs, because a child inherits the handler.
    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds)
    _, status = os.waitpid(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    if os.fstat(answers).st_size > size_bytes:
        return
    if is_late:
        text = f"loading it takes longer than dag_file_processor_timeout, {timeout_seconds:g} s"
        answer({"file": path, "dags": [], "errors": {path: text}})
    else:
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        answer({"file": path, "ended": code})


def make_database() -> None:
    """
    Create an empty database: in Airflow 2 a DAG file may query it.
    """
    from airflow import settings
    from airflow.utils.db import initdb

    initdb(load_connections=False)
    settings.engine.dispose()  # children must not share a connection


def close_database() -> None:
    """
    Block access to the database in this process, as Airflow 3 does before it loads a file.
    """
    supervisor = sys.modules.get("airflow.sdk.execution_time.supervisor")
    if supervisor is not None:
        supervisor.block_orm_access()


def import_first(paths: Sequence[str]) -> None:
    """
    Import the parts of Airflow that the files import, once, as its DAG processor does.
    """
    from airflow.utils.file import iter_airflow_imports

    for name in {name for path in paths for name in iter_airflow_imports(path)}:
        with suppress(Exception):  # the file that imports it will report it
            importlib.import_module(name)


def plugin_errors(folder: str) -> dict[str, str]:
    """
    Load the plugins; return the errors of those in the folder: the others belong to the image.
    """
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    if hasattr(plugins_manager, "get_import_errors"):  # 3.2 and later
        found = plugins_manager.get_import_errors()
    else:
        found = plugins_manager.import_errors
    inside = os.path.join(folder, "")
    paths = {os.path.join(folder, str(path)): str(error) for path, error in found.items()}
    return {path: error for path, error in paths.items() if path.startswith(inside)}


def dag_files(folder: str, *, is_safe: bool) -> Collection[str]:
    """
    Return the files that Airflow's DAG processor would load.
    """
    from airflow.utils import file

    if hasattr(file, "list_py_file_paths"):  # before 3.4
        paths: list[str] = file.list_py_file_paths(folder, safe_mode=is_safe)
        return paths
    from airflow.dag_processing.bundles.local import LocalDagBundle
    from airflow.sdk.importers import DagImportError, get_importer_registry

    bundle = LocalDagBundle(name=BUNDLE, path=folder)
    listed = get_importer_registry(BUNDLE).list_dag_definitions(bundle, safe_mode=is_safe)
    places = (
        one.source_reference
        if isinstance(one, DagImportError)
        else one.get_relative_loc(bundle.path)
        for _, one in listed
    )
    # Each DAG in an archive has its own place; an unreadable file has an error instead.
    found = {file.find_enclosing_file(Path(folder, place)) for place in places}
    return [str(path) for path in found if path is not None]


def undecodable_ignore_files(folder: str) -> dict[str, str]:
    """
    Return each ``.airflowignore`` that Airflow cannot decode, with the error.
    """
    errors = {}
    for path in filter(Path.is_file, Path(folder).rglob(".airflowignore")):
        try:
            path.read_text()
        except UnicodeDecodeError as error:
            errors[str(path)] = f"{type(error).__name__}: {error}"
    return errors


def work(home: str, folder: str, answers: int, answer: Callable[[dict[str, Any]], None]) -> None:
    """
    Load all plugins and files of the folder.
    """
    os.environ.update(environment(home, folder))
    try:
        import airflow
    except ModuleNotFoundError as error:
        if error.name != "airflow":
            raise
        answer({"missing": str(error)})
        return
    from airflow.configuration import conf

    answer({"airflow": airflow.__version__})
    section = "dag_processor"
    if airflow.__version__.startswith("2."):
        section = "core"
        make_database()
    else:
        importlib.import_module("airflow.sdk.execution_time.supervisor")
    if folder not in sys.path:  # at the end, as in Airflow
        sys.path.append(folder)
    for path, text in plugin_errors(folder).items():
        answer({"file": path, "dags": [], "errors": {path: text}})
    loader = Loader(folder)
    is_safe = conf.getboolean("core", "dag_discovery_safe_mode")
    paths = sorted(dag_files(folder, is_safe=is_safe))
    timeout_seconds = conf.getfloat(section, "dag_file_processor_timeout")
    import_first(paths)
    for path in paths:
        load_apart(loader, path, answers, answer, timeout_seconds)
    answer({"done": len(paths)})


def main() -> None:
    """
    Load the folder and write the answers.
    """
    home, folder = sys.argv[1], os.environ["GATE_FOLDER"]
    answers = os.open(os.path.join(home, "answers"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def answer(value: dict[str, Any]) -> None:
        os.write(answers, json.dumps(value).encode() + b"\n")

    try:
        work(home, folder, answers, answer)
    except UnicodeDecodeError:
        errors = undecodable_ignore_files(folder)
        if not errors:
            raise
        for path, text in errors.items():
            answer({"file": path, "dags": [], "errors": {path: text}})
        answer({"done": 0})


if __name__ == "__main__":
    del sys.path[0]  # the folder of this program: its modules must not be imported
    main()
