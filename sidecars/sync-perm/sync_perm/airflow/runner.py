"""
The script of a targeted pass, run by the image's own Airflow Python: ``python runner.py TASK``.

It imports nothing from the sidecar, and works with Airflow 2.7 to 2.11 and 3 with the FAB provider.
TASK is a file with one JSON object:

- ``parent``: the sidecar's process; this script dies with it, because the lock is released then;
- ``command``: a command to run instead of the following (the full ``airflow sync-perm``);
- ``roles``: whether to sync Airflow's views and roles;
- ``dags``: the ids of the DAGs to sync;
- ``given``: role → [action, resource] pairs; a missing role is created, and no grant is removed;
- ``tell``: an SQLite file whose contents to report at the end; optional.

Standard output has one JSON object per line:

- ``{"dag": id, "error": text}`` for each DAG that failed;
- ``{"roles": [name, …], "bare": [resource without permissions, …], "permissions": [[action,
  resource], …], "grants": [[role, action, resource], …], "completed": [role, …], "configured":
  [role, …], "unimported": [plugin, …]}`` for ``tell``;
- at the end ``{"done": number of DAGs}``, or ``{"failed": {"kind", "error", "module",
  "is_misfit"}}``.

All output of Airflow itself goes to standard error.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

Answer = Callable[[dict[str, Any]], None]

PR_SET_PDEATHSIG = 1  # linux/prctl.h; exec keeps it
NO_ARGUMENTS: dict[str, Any] = {}
"""For [database] sql_alchemy_connect_args: the arguments of another database do not fit SQLite."""

BUILDERS = (
    "airflow.providers.fab.auth_manager.cli_commands.utils",  # 2.9 and later
    "airflow.auth.managers.fab.cli_commands.utils",  # 2.8
    "airflow.utils.cli_app_builder",  # 2.7
)
MANAGERS = (
    "airflow.providers.fab.www.security_appless",  # 3
    "airflow.www.security_appless",  # 2.9 to 2.11
    "airflow.www.security",  # 2.7, 2.8
)

_PERMISSIONS = (
    " JOIN ab_permission a ON a.id = p.permission_id JOIN ab_view_menu v ON v.id = p.view_menu_id"
)
CONTENTS = {
    "roles": "SELECT name FROM ab_role",
    "bare": "SELECT name FROM ab_view_menu v WHERE NOT EXISTS"
    " (SELECT 1 FROM ab_permission_view p WHERE p.view_menu_id = v.id)",
    "permissions": f"SELECT a.name, v.name FROM ab_permission_view p{_PERMISSIONS}",
    "grants": "SELECT r.name, a.name, v.name FROM ab_permission_view_role g JOIN ab_role r"
    f" ON r.id = g.role_id JOIN ab_permission_view p ON p.id = g.permission_view_id{_PERMISSIONS}",
}
# The errors that our code raises if Airflow's code differs from the versions it was written for.
MISFITS = (ImportError, AttributeError, TypeError)


def first_of(modules: Sequence[str], name: str) -> Any:
    """
    Return an attribute of the first module that exists and has it.
    """
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name or "?"):
                raise  # the module exists, but one of its own imports does not
        except AttributeError:
            pass
    raise ImportError(f"none of {', '.join(modules)} has {name}")


def sync_roles(*, is_described: bool) -> dict[str, list[str]]:
    """
    Do what ``airflow sync-perm`` does, except for its row in ``log``; for ``tell``, return what the
    empty database does not show.
    """
    get_application_builder = first_of(BUILDERS, "get_application_builder")
    configured = hide_configured_roles() if is_described else []
    with get_application_builder() as appbuilder:
        facts = describe(appbuilder.sm, configured) if is_described else {}
        appbuilder.add_permissions(update_perms=True)
        appbuilder.sm.sync_roles()
    return facts


def hide_configured_roles() -> list[str]:
    """
    Return the roles in ``[fab] custom_roles``, and keep Airflow from creating them: it would refuse
    resources that only the real database has, such as a DAG.
    """
    from airflow.configuration import conf

    configured = list(conf.getjson("fab", "custom_roles", fallback={}))
    os.environ["AIRFLOW__FAB__CUSTOM_ROLES"] = "{}"
    return configured


def describe(manager: Any, configured: list[str]) -> dict[str, list[str]]:
    """
    Return the roles whose lost grants Airflow restores, the configured roles that it creates (FAB
    3.10 and later), and the plugins that could not be imported.
    """
    from airflow import plugins_manager

    failed = getattr(plugins_manager, "get_import_errors", None)  # Airflow 3.2 and later
    return {
        "completed": [*(one["role"] for one in manager.ROLE_CONFIGS), manager.auth_role_admin],
        "configured": configured if hasattr(manager, "create_roles_from_config") else [],
        "unimported": list(failed() if failed else plugins_manager.import_errors),
    }


def sync_dags(dag_ids: list[str], answer: Answer) -> None:
    """
    Sync DAGs one by one, with the security manager that Airflow's own parser uses.
    """
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.serialized_objects import BaseSerialization
    from airflow.utils.session import create_session

    security_manager = first_of(MANAGERS, "ApplessAirflowSecurityManager")
    with create_session() as session:
        sync = security_manager(session=session).sync_perm_for_dag
        for dag_id in dag_ids:
            try:
                row = SerializedDagModel.get(dag_id, session=session)
                if row is None:
                    continue  # deleted since the plan was made
                dag = row.data["dag"]
                access = dag.get("_access_control", dag.get("access_control"))
                if access is not None:
                    access = BaseSerialization.deserialize(access)
                sync(dag_id, access)
                session.commit()
            except Exception as error:  # other DAGs go on
                trace = error.__traceback__
                if isinstance(error, MISFITS) and trace and not trace.tb_next:
                    raise  # our own call does not fit, so it would fail for each DAG
                session.rollback()
                traceback.print_exc()
                answer({"dag": dag_id, "error": f"{type(error).__name__}: {error}"})


def give(given: dict[str, list[list[str]]]) -> None:
    """
    Grant missing permissions, with one commit per role: one per grant takes minutes at 10,000.
    """
    from airflow.utils.session import create_session

    security_manager = first_of(MANAGERS, "ApplessAirflowSecurityManager")
    with create_session() as session:
        manager = security_manager(session=session)
        known: dict[tuple[str, str], Any] = {}
        for action, resource in {(a, r) for pairs in given.values() for a, r in pairs}:
            known[action, resource] = made(manager.create_permission(action, resource), resource)
        for name, pairs in given.items():
            role = made(manager.add_role(name), name)
            has = {permission.id for permission in role.permissions}
            wanted = [known[action, resource] for action, resource in pairs]
            role.permissions.extend(one for one in wanted if one.id not in has)
            session.commit()


def made(found: Any, name: str) -> Any:
    """
    Return the object that Airflow found or created; raise for None, which means that it failed.
    """
    if found is None:
        raise RuntimeError(f"Airflow could not create {name!r}")
    return found


def tell(path: str, facts: dict[str, list[str]], answer: Answer) -> None:
    """
    Report what Airflow has written into an SQLite file, and these facts.

    The script does this because the driver would stay in the sidecar's memory.
    """
    with closing(sqlite3.connect(path)) as database:
        found = {name: database.execute(sql).fetchall() for name, sql in CONTENTS.items()}
    names = {key: [name for (name,) in found[key]] for key in ("roles", "bare")}
    answer({**found, **names, **facts})


def work(task: dict[str, Any], answer: Answer) -> None:
    """
    Carry out the task.
    """
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    providers_configuration_loaded(lambda: None)()
    facts = sync_roles(is_described="tell" in task) if task["roles"] else {}
    if task["dags"]:
        sync_dags(task["dags"], answer)
    if task["given"]:
        give(task["given"])
    if "tell" in task:
        tell(task["tell"], facts, answer)
    answer({"done": len(task["dags"])})


def main() -> None:
    """
    Read the task, carry it out, and write the answers.
    """
    with open(sys.argv[1]) as file:
        task = json.load(file)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != task["parent"]:
        sys.exit("the sidecar's process has ended")
    if task["command"]:
        os.execv(task["command"][0], task["command"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        work(task, answer)
    except Exception as error:  # noqa: BLE001 - the answer reports it
        traceback.print_exc()
        module = error.name if isinstance(error, ModuleNotFoundError) else None
        failed = {"kind": type(error).__name__, "error": str(error), "module": module}
        answer({"failed": {**failed, "is_misfit": isinstance(error, MISFITS)}})
        sys.exit(1)


if __name__ == "__main__":
    del sys.path[0]  # our folder must not shadow Airflow's modules
    main()
