"""
Loads a folder of DAGs as Airflow's DAG processor does, with the Python of an Airflow
2.7 to 3.

``python airflow_runner.py HOME``: HOME is an empty folder, which becomes AIRFLOW_HOME;
GATE_FOLDER in the environment is the folder to load. It imports nothing from s3-sync.
Each file is loaded in a process of its own, so that its mistakes cannot affect the next
one. They all have the same user, so malice can: it can write every answer. At the end,
one JSON object is written to the file ``answer`` in HOME:

- ``airflow``: its version; ``dags``: the ids of all DAGs;
- ``findings``: rows of path, line or null, and problem;
- ``trouble``: why a file has no verdict: a signal, or a failure of Airflow or of this
  program.
"""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import connection
from pathlib import Path
from typing import Any

FORK = multiprocessing.get_context("fork")
BUNDLE = "dags"
LINE_CHARACTERS = 300
FRAME = re.compile(r'^\s*File "(?P<path>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
# A traceback up to its error: the last frame, and the indented source that follows it.
TRACE = re.compile(
    r'\A.*^\s*File "[^"]+", line \d+.*?\n(?!\s)', re.MULTILINE | re.DOTALL
)
Loader = Callable[[str], dict[str, Any]]


def environment(home: str, folder: str) -> dict[str, str]:
    """
    Return the settings of Airflow that are never taken from the user, above all the
    database.
    """
    return {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": folder,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "50",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # As in the DAG processor of Airflow 3: no Variable is read from a database.
        "_AIRFLOW_PROCESS_CONTEXT": "client",
    }


def loader(folder: str) -> Loader:
    """
    Return the function that loads one file, and serializes its DAGs, as Airflow would
    for its database; it returns their ids, and the errors by path.
    """
    objects = import_module("airflow.serialization.serialized_objects")
    # DagSerialization: 3.2 and later; airflow.dag_processing.dagbag: 3.1 and later.
    kind = getattr(objects, "DagSerialization", None) or objects.SerializedDAG
    is_new = find_spec("airflow.dag_processing.dagbag")
    bags = "airflow.dag_processing.dagbag" if is_new else "airflow.models.dagbag"
    bag_of = import_module(bags).DagBag
    known = inspect.signature(bag_of).parameters
    wanted = {
        "include_examples": False,
        "load_op_links": False,
        "bundle_path": Path(folder),
        "bundle_name": BUNDLE,
    }
    options = {name: value for name, value in wanted.items() if name in known}
    supervisor = sys.modules.get("airflow.sdk.execution_time.supervisor")

    def load(path: str) -> dict[str, Any]:
        if supervisor is not None:  # as Airflow 3 does before it loads a file
            supervisor.block_orm_access()
        bag = bag_of(path, **options)
        errors, dags = dict(bag.import_errors), []
        for dag in bag.dags.values():
            try:
                json.dumps(kind.to_dict(dag), sort_keys=True)
                dags.append(dag.dag_id)
            except Exception:  # noqa: BLE001 - as Airflow does
                errors[path] = traceback.format_exc()
        return {"dags": dags, "errors": errors}

    return load


def load_apart(
    load: Loader, path: str, said: Path, timeout_seconds: float
) -> dict[str, Any]:
    """
    Load one file in a separate process, which is killed after the timeout.

    Args:
        said: Where that process writes its answer.
    """
    said.unlink(missing_ok=True)
    child = FORK.Process(target=_tell, args=(load, path, said))
    child.start()
    # join() would also wait for what the file forked
    ended = os.pidfd_open(child.pid or 0)
    is_late = not connection.wait([ended], timeout_seconds)
    os.close(ended)
    if is_late:
        child.kill()
        child.join()
        text = f"loading it takes longer than dag_file_processor_timeout, {timeout_seconds:g} s"
        return {"errors": {path: text}}
    code = child.exitcode or 0
    if code < 0:
        return {"trouble": signal.Signals(-code).name}
    if code or not said.exists():
        return {"errors": {path: "it ends the process that loads it"}}
    return dict(json.loads(said.read_text()))


def _tell(load: Loader, path: str, said: Path) -> None:
    """
    Load one file, write the answer, and end this process.
    """
    answer: dict[str, Any] = {}
    try:
        answer = load(path)
    except Exception as error:  # noqa: BLE001 - Airflow itself reports what a file raises
        answer = {"trouble": f"{type(error).__name__}: {error}"}
    except BaseException:  # noqa: BLE001 - except SystemExit and the like
        answer = {"errors": {path: traceback.format_exc()}}
    finally:
        said.write_text(json.dumps(answer))
        os._exit(0)


def dag_files(folder: str, *, is_safe: bool) -> Collection[str]:
    """
    Return the files that Airflow's DAG processor would load.
    """
    file = import_module("airflow.utils.file")
    if hasattr(file, "list_py_file_paths"):  # before 3.4
        paths: list[str] = file.list_py_file_paths(folder, safe_mode=is_safe)
        return paths
    importers = import_module("airflow.sdk.importers")
    local = import_module("airflow.dag_processing.bundles.local")
    bundle = local.LocalDagBundle(name=BUNDLE, path=folder)
    listed = importers.get_importer_registry(BUNDLE).list_dag_definitions(
        bundle, safe_mode=is_safe
    )
    places = (
        one.source_reference
        if isinstance(one, importers.DagImportError)
        else one.get_relative_loc(bundle.path)
        for _, one in listed
    )
    # Each DAG in an archive has its own place; an unreadable file has an error instead.
    found = {file.find_enclosing_file(Path(folder, place)) for place in places}
    return [str(path) for path in found if path is not None]


def finding(path: str, text: str, folder: str) -> tuple[str, int | None, str]:
    """
    Return path, line and problem of a traceback, or of an error without one.

    Args:
        path: The file that Airflow shows as broken.
    """
    text = text.replace(f"{folder}/", "")
    path = path.replace(f"{folder}/", "")
    ours = [
        (frame["path"], int(frame["line"]))
        for frame in FRAME.finditer(text)
        if frame["path"][0] != "/" and os.path.isfile(f"{folder}/{frame['path']}")
    ]
    problem = " ".join(TRACE.sub("", text).split())[:LINE_CHARACTERS]
    if ours and ours[-1][0] != path:
        problem += f" (in {ours[-1][0]}:{ours[-1][1]})"
    lines = [line for place, line in ours if place == path]
    return path, lines[-1] if lines else None, problem


def work(home: str, folder: str) -> dict[str, Any]:
    """
    Load all files of the folder; return the answer.
    """
    os.environ.update(environment(home, folder))
    airflow = import_module("airflow")
    conf = import_module("airflow.configuration").conf
    section = "dag_processor"
    if airflow.__version__.startswith("2."):  # a DAG file may query the database
        section = "core"
        import_module("airflow.utils.db").initdb(load_connections=False)
        # children must not share a connection
        import_module("airflow.settings").engine.dispose()
    else:
        import_module("airflow.sdk.execution_time.supervisor")
    if folder not in sys.path:  # at the end, as in Airflow
        sys.path.append(folder)
    import_module("airflow.plugins_manager").ensure_plugins_loaded()
    found: list[tuple[str, int | None, str]] = []
    paths = sorted(
        dag_files(folder, is_safe=conf.getboolean("core", "dag_discovery_safe_mode"))
    )
    read_imports = import_module("airflow.utils.file").iter_airflow_imports
    # What the files import of Airflow, once for all of them, as its DAG processor does.
    for name in {name for path in paths for name in read_imports(path)}:
        with suppress(Exception):  # the file that imports it will report it
            import_module(name)
    load = loader(folder)
    seconds = conf.getfloat(section, "dag_file_processor_timeout")
    dags: dict[str, str] = {}
    trouble = ""
    for path in paths:
        said = load_apart(load, path, Path(home, "said"), seconds)
        name = path[len(folder) + 1 :]
        for place, text in said.get("errors", {}).items():
            found.append(finding(place, text, folder))
        if "trouble" in said:
            trouble = trouble or f"loading {name} failed: {said['trouble']}"
        found += [
            (name, None, f"the DAG {dag!r} is also in {dags[dag]}")
            for dag in said.get("dags", ())
            if dags.setdefault(dag, name) != name
        ]
    return {
        "airflow": airflow.__version__,
        "dags": sorted(dags),
        "findings": found,
        "trouble": trouble,
    }


if __name__ == "__main__":
    # The folder of this program: its modules must not be imported. PYTHONSAFEPATH keeps
    # it out since Python 3.11.
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    Path(sys.argv[1], "answer").write_text(
        json.dumps(work(sys.argv[1], os.environ["GATE_FOLDER"]))
    )
