"""
The script that the image's own Airflow Python runs: ``python inside_airflow.py
inspect|connect|work …``.

It imports nothing from the sidecar. ``work`` fits Airflow 2.11 and 3 with the FAB
provider. All output of Airflow itself goes to standard error. Standard output has one
JSON object per line.

``inspect`` tells what this Airflow is, and imports it only if that needs it: see
:func:`inspect`. ``connect`` tells how it connects to its database: see :func:`connection`.

``work`` reads a file with one JSON object:

- ``parent``: the sidecar's process; this script dies with it, because the lock is
  released then;
- ``command``: a command to run instead of the following (the full ``airflow
  sync-perm``);
- ``roles``: whether to sync Airflow's views and roles;
- ``load``: whether to tell what Airflow defines for them, even if it does not write
  them;
- ``given``: role → [action, resource] pairs; a missing role is created, and no grant is
  removed;
- ``dags``: the ids of the DAGs to sync, at least one, until they took a minute, or
  longer after a slow start, but not beyond the ``seconds`` of all.

It answers ``{"defined": role → [[action, resource], …]}`` for roles, ``{"logged":
text}`` for an error that Airflow logged while it synced them, ``{"synced": whether it did
so without one}``, ``{"tried": name, "error": text}`` for each ``role NAME`` of the file
and each DAG that was tried, before that with :data:`ENDED`, and ``{"failed": text,
"where": the file and line of the user's}`` if it fails.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import importlib.util
import json
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib import metadata
from typing import Any

Told = dict[str, Any]
"""A task or an answer, as in JSON."""
Answer = Callable[[Told], None]

# Whose calls tell how Airflow connects.
DRIVERS = ("psycopg2", "psycopg", "MySQLdb", "pymysql")
# Arguments of theirs that concern Python, and no server.
OF_PYTHON = re.compile(
    "autocommit|async_|connection_factory|context|conv|cursor_factory|cursorclass|"
    "prepare_threshold|row_factory"
)
# Whose listeners change nothing that matters here.
OURS = ("airflow.", "sqlalchemy.", "opentelemetry.")
# How long a portion works on DAGs at least: long beside a usual start of Airflow, short
# beside a person's wait.
PORTION_SECONDS = 60.0
# With little CPU, this many times as long as the start took.
STARTS = 4.0
# The error of a role or DAG until it is done; whoever reads it last knows where a pass was killed.
ENDED = "the pass ended before it was done"
PR_SET_PDEATHSIG = 1  # linux/prctl.h; exec keeps it

FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
BUILDER = (
    "airflow.providers.fab.auth_manager.cli_commands.utils.get_application_builder"
)
FAB_PROVIDER = "apache-airflow-providers-fab"
# What is called of it, and the file that must define it: any version may move it.
OF_FAB = {
    "get_application_builder": "cli_commands/utils.py",
    "FabAirflowSecurityManagerOverride": "security_manager/override.py",
    "add_role": "security_manager/override.py",
    "create_permission": "security_manager/override.py",
    "find_role": "security_manager/override.py",
    "sync_roles": "security_manager/override.py",
    "sync_perm_for_dag": "security_manager/override.py",
}
# In Airflow 2, it is Airflow's own.
OF_FAB_SINCE_3 = {"ApplessAirflowSecurityManager": "../www/security_appless.py"}
OVERRIDE = (
    "airflow.providers.fab.auth_manager.security_manager.override."
    "FabAirflowSecurityManagerOverride"
)
# Who logs that a row could not be written, and goes on: the security managers.
WRITERS = ("airflow.providers.fab", "airflow.www", "airflow.auth", "flask_appbuilder")


# --- inspect


def inspect() -> Told:
    """
    Return what this Airflow is: ``problem``, and what an `Installation` is made of.
    """
    version = version_of("apache-airflow") or version_of("apache-airflow-core")
    release = release_of(version)
    setting = os.environ["AIRFLOW__CORE__AUTH_MANAGER"]
    manager = None
    problem = ""
    try:
        if setting != FAB or release >= (3, 4):
            importlib.import_module("airflow")  # which extends the path
            manager = imported(setting)
            if not issubclass(manager, imported(FAB)):
                problem = (
                    "is not derived from FabAuthManager, so there is nothing to sync"
                )
    except Exception as error:  # noqa: BLE001 - the text of an unexpected one may have a secret
        is_safe = isinstance(error, (AttributeError, ImportError))
        problem = f"cannot be imported: {error if is_safe else type(error).__name__}"
    fab = version_of(FAB_PROVIDER)
    if not fab:
        problem = "needs the FAB provider, which this image does not contain"
    local = importlib.util.find_spec("airflow_local_settings")
    local_settings = os.path.realpath(local.origin or "") if local else ""
    return {
        "version": version,
        "fab": fab,
        "lacks": find_lacking(release) if fab else "",
        "local_settings": local_settings,
        "problem": problem,
        "restores_dags": applies_access_control(release, setting, manager),
    }


def version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def find_lacking(release: tuple[int, ...]) -> str:
    """
    Return what ``work`` calls, and this FAB provider does not define; empty if it has
    all of it. Its files are read, because to import them takes seconds.
    """
    fab = metadata.distribution(FAB_PROVIDER)
    for name, file in (OF_FAB | (OF_FAB_SINCE_3 if release >= (3,) else {})).items():
        # relative to the folder of its metadata
        if f"{name}(" not in (
            fab.read_text(f"../airflow/providers/fab/auth_manager/{file}") or ""
        ):
            return f"{name} in {file}"
    return ""


def release_of(version: str) -> tuple[int, ...]:
    """
    Return the major and minor version; empty if the version is not numeric.
    """
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def applies_access_control(
    release: tuple[int, ...], setting: str, manager: Any
) -> bool:
    """
    Whether Airflow itself applies the ``access_control`` of DAGs at each parse.

    As Airflow decides it (airflow/dag_processing/collection.py): in 3.0 to 3.3 by the
    text of the setting, from 3.4 on by a function of the auth manager's class, which
    FAB's has since 3.10.2.
    """
    if release < (3, 4):
        return release >= (3, 0) and "FabAuthManager" in setting
    return getattr(manager, "sync_dag_perms", None) is not None


def imported(path: str) -> Any:
    """
    Return a part of Airflow, which takes seconds to import and is needed late.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


# --- connect


class Asked(BaseException):
    """
    Ends the call of a driver: its arguments are all that is wanted.
    """


def connection() -> Told:
    """
    Return what Airflow's engine passes to its driver for a new connection: the URL's
    parts, and whatever the arguments for the driver and airflow_local_settings.py make
    of them (a ``do_connect`` listener, a ``creator``, an engine of its own).

    No connection is made, unless by a driver that is not ours to take over.

    Returns:
        ``text``: the URL; ``schema``: of the tables; ``driver``: the module that was
        called; ``arguments``: those that concern the server; ``foreign``: what nobody
        but this Airflow can do;
        ``is_plain``: whether the URL and the arguments for the driver say it all.
    """
    calls: list[tuple[str, Told]] = []

    def note(driver: str, *address: str, **given: Any) -> None:
        calls.append((driver, given | ({"dsn": address[0]} if address else {})))
        raise Asked

    # before Airflow's import, because the user's files may import the function itself
    for name in DRIVERS:
        if importlib.util.find_spec(name):
            importlib.import_module(name).connect = partial(note, name)  # type: ignore[attr-defined]
    conf = imported("airflow.configuration.conf")
    engine = imported("airflow.settings.engine")
    with suppress(Asked):
        engine.pool._invoke_creator(None)
    driver, given = calls[0] if calls else ("", {})
    _, options = engine.dialect.create_connect_args(engine.url)
    if conf.has_option("database", "sql_alchemy_connect_args"):
        options |= conf.getimport("database", "sql_alchemy_connect_args") or {}
    foreign = [
        f"the {event} listener {one.__module__}.{getattr(one, '__name__', one)}"
        for event in ("connect", "first_connect", "checkout")
        for one in getattr(engine.pool.dispatch, event)
        if not one.__module__.startswith(OURS)
    ]
    if not driver:
        foreign.append("a driver that is none of psycopg2, psycopg, MySQLdb, pymysql")
    arguments = {}
    for key, value in given.items():
        if OF_PYTHON.fullmatch(key):
            continue
        try:
            arguments[key] = json.loads(json.dumps(value))
        except TypeError:
            foreign.append(f"the argument {key}")
    return {
        "text": conf.get("database", "sql_alchemy_conn"),
        "schema": conf.get("database", "sql_alchemy_schema", fallback="") or "",
        "driver": driver,
        "arguments": arguments,
        "foreign": foreign,
        "is_plain": given == options,
    }


# --- work


class Errors(logging.Handler):
    """
    Collects the errors that Airflow logs instead of raising them.
    """

    def begin(self) -> None:
        """
        Forget what was found; attach it again, because Airflow's app configures the
        loggers.
        """
        self.found: list[str] = []
        for name in WRITERS:
            logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())

    def of(self, session: Any, deed: Callable[[], None]) -> list[str]:
        """
        Sync one DAG or role of the file; return what Airflow logged and raised, so that
        others go on.
        """
        self.begin()
        try:
            deed()
            session.commit()
        except Exception as error:  # noqa: BLE001 - the answer reports it
            session.rollback()
            traceback.print_exc()
            self.found.append(f"{type(error).__name__}: {error}")
        return self.found


def sync_roles(answer: Answer, errors: Errors, *, is_written: bool) -> None:
    """
    Do what ``airflow sync-perm`` does, except for its row in ``log``; tell what it
    defines.
    """
    if not is_written:
        for section in ("FAB", "WEBSERVER"):  # otherwise loading writes the views
            os.environ[f"AIRFLOW__{section}__UPDATE_FAB_PERMS"] = "False"
        imported(OVERRIDE).create_db = lambda _: None
        # whatever the user's security manager writes is rolled back
        imported("sqlalchemy.engine.default.DefaultDialect").do_commit = lambda *_: None
    # Flask takes what webserver_config.py does not find for a file that is not there.
    config = imported("flask.Config")
    load = config.from_pyfile
    config.from_pyfile = lambda self, name, **_: (
        os.path.exists(os.path.join(self.root_path, name)) and load(self, name)
    )
    with imported(BUILDER)() as appbuilder:
        errors.begin()
        manager = appbuilder.sm
        own = [manager.auth_role_admin, manager.auth_role_public]
        own += imported("airflow.configuration.conf").getjson(
            "fab", "custom_roles", fallback={}
        )
        answer(
            {
                "defined": {
                    **dict.fromkeys(own, ()),
                    **{one["role"]: list(one["perms"]) for one in manager.ROLE_CONFIGS},
                }
            }
        )
        if is_written:
            appbuilder.add_permissions(update_perms=True)
            manager.sync_roles()


def give(name: str, pairs: list[list[str]], manager: Any) -> None:
    """
    Grant a role what it lacks, with one commit: one per grant takes minutes at 10,000.
    """
    role = created(manager.add_role(name), name)
    has = {permission.id for permission in role.permissions}
    for action, resource in pairs:
        permission = created(manager.create_permission(action, resource), resource)
        if permission.id not in has:
            role.permissions.append(permission)


def created(found: Any, name: str) -> Any:
    """
    Return the object that Airflow found or created; raise for None, which means that it
    failed.
    """
    if found is None:
        raise RuntimeError(f"Airflow could not create {name!r}")
    return found


def sync_dag(dag_id: str, manager: Any, session: Any) -> None:
    """
    Sync one DAG, unless it was deleted since the plan was made.
    """
    # FAB compares each grant with all that its role has, which takes hours with thousands
    # of DAGs. Where nobody has one on this DAG, the others are of no use.
    model = manager.role_model
    has_grants = (
        session.query(model.id)
        .join(model.permissions)
        .join(manager.permission_model.resource)
        .filter(manager.resource_model.name.in_([f"DAG:{dag_id}", f"DAG Run:{dag_id}"]))
        .first()
    )
    for role in [one for one in session if isinstance(one, model)]:
        if has_grants:
            session.expire(role)
        else:
            imported("sqlalchemy.orm.attributes.set_committed_value")(
                role, "permissions", []
            )
    row = imported("airflow.models.serialized_dag.SerializedDagModel").get(
        dag_id, session=session
    )
    if row is None:
        return
    dag = row.data["dag"]
    access = dag.get("_access_control", dag.get("access_control"))
    manager.sync_perm_for_dag(
        dag_id,
        imported(
            "airflow.serialization.serialized_objects.BaseSerialization"
        ).deserialize(access),
    )


def work(task: Told, answer: Answer) -> None:
    """
    Carry out the task.

    Garbage is collected only while it works on DAGs: until then there is next to none
    (2 MiB), and the search for it is a fifth of a run.
    """
    gc.disable()
    began = time.monotonic()
    imported(
        "airflow.utils.providers_configuration_loader.providers_configuration_loaded"
    )(lambda: None)()
    # As each of Airflow's commands: creating the app would create tables. It ends this
    # process.
    if imported("airflow.configuration.conf").getboolean(
        "database", "check_migrations"
    ):
        imported("airflow.utils.db.check_and_run_migrations")()
    errors = Errors(logging.ERROR)
    if task["roles"] or task["load"]:
        sync_roles(answer, errors, is_written=task["roles"])
        for text in errors.found:
            answer({"logged": text})
        answer({"synced": task["roles"] and not errors.found})
    if not (task["given"] or task["dags"]):
        return
    with imported("airflow.utils.session.create_session")() as session:
        # Each grant is committed. To read all of its role again takes as long, and to look
        # for the role; what others write meanwhile, the next pass sees.
        session.expire_on_commit = False
        # As Airflow's own parser uses it.
        www = "airflow.providers.fab.www"
        if version_of("apache-airflow").startswith("2."):
            www = "airflow.www"
        manager = imported(f"{www}.security_appless.ApplessAirflowSecurityManager")(
            session=session
        )
        gc.freeze()
        gc.enable()

        def attempt(name: str, deed: Callable[[], None]) -> None:
            answer({"tried": name, "error": ENDED})
            answer({"tried": name, "error": "; ".join(errors.of(session, deed))})

        for name, pairs in task["given"].items():
            attempt(f"role {name}", partial(give, name, pairs, manager))
        ready = time.monotonic()
        # With little CPU longer, because the next one takes as long to start.
        portion = max(PORTION_SECONDS, STARTS * (ready - began))
        until = min(ready + portion, began + task["seconds"])
        manager.find_role = cache(manager.find_role)
        for dag_id in task["dags"]:
            attempt(dag_id, partial(sync_dag, dag_id, manager, session))
            if time.monotonic() > until:
                break


def explained(error: BaseException) -> Told:
    """
    Return the answer for an error: its text, and the last line of a file of the user
    that it passed, such as webserver_config.py; none for what the database did.
    """
    libraries = (os.path.dirname(os.__file__), os.path.abspath(__file__), "<")
    passed = [
        (one.filename, one.lineno) for one in traceback.extract_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError):
        passed.append((error.filename or "<", error.lineno))
    found = [
        f"{os.path.realpath(file)}:{line}"
        for file, line in passed
        if not file.startswith(libraries) and "-packages/" not in file
    ]
    # also of what FAB made of it
    if any(
        one.startswith("sqlalchemy.exc.") for one in traceback.format_exception(error)
    ):
        found = []
    return {
        "failed": f"{type(error).__name__}: {error}",
        "where": found[-1] if found else "",
    }


def main() -> None:
    """
    Read the task, carry it out, and write the answers.
    """
    answers = os.fdopen(os.dup(1), "w")

    def answer(value: Told) -> None:
        print(json.dumps(value), file=answers, flush=True)

    if sys.argv[1] != "work":
        question, plugins = sys.argv[1:]
        home = os.environ["AIRFLOW_HOME"]
        sys.path += [f"{home}/config", plugins or f"{home}/plugins"]
        os.dup2(2, 1)
        try:
            answer(connection() if question == "connect" else inspect())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the answer reports it
            answer(explained(error))
        return
    with open(sys.argv[2]) as file:
        task = json.load(file)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != task["parent"]:
        sys.exit("the sidecar's process has ended")
    if task["command"]:
        os.execv(task["command"][0], task["command"])
    os.dup2(2, 1)
    try:
        work(task, answer)
    except (Exception, SystemExit) as error:
        said = explained(error)
        # Airflow ends itself where the database awaits a migration, and has said so.
        if isinstance(error, SystemExit) and not said["where"]:
            raise
        traceback.print_exc()
        answer(said)
        sys.exit(1)
    # The interpreter would take Airflow apart, object by object: a fifth of a run.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    del sys.path[0]  # our folder must not shadow Airflow's modules
    main()
