"""
Writes DAGs into Airflow's metadata database as its DAG processor does; run by Airflow's
own Python.

Standard input is JSON: {"parsed": bool, "dags": {DAG id: access_control or null},
"places": {DAG id: [path below the DAG folder, tag, ...]}}.
With "parsed", their permissions are also written, as after a parse of their files.
Without it, only their serialized forms are written, as if every permission had been
lost.
"""

import inspect
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import airflow

FOLDER = Path(os.environ["AIRFLOW_HOME"], "dags")
FIRST_DAY = datetime(2024, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - for old Pythons
IS_AIRFLOW_2 = airflow.__version__.startswith("2.")


def access_control_of(given: Any) -> Any:
    """
    Convert JSON's lists into the sets that Airflow requires.
    """
    if isinstance(given, dict):
        return {key: access_control_of(value) for key, value in given.items()}
    return set(given) if isinstance(given, list) else given


def write_2(dags: dict[str, Any], places: dict[str, list[str]], parsed: bool) -> None:
    """
    Write the DAGs with Airflow 2.
    """
    from airflow.models.dag import DAG
    from airflow.models.dagbag import DagBag

    if not parsed:
        DagBag._sync_perm_for_dag = classmethod(lambda *_, **__: None)
    bag = DagBag("/dev/null", include_examples=False)
    for dag_id, access_control in dags.items():
        path, *tags = places.get(dag_id, ["dags.py"])
        file = FOLDER / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# what Airflow keeps as the code of the DAG\n")
        dag = DAG(
            dag_id,
            schedule=None,
            start_date=FIRST_DAY,
            access_control=access_control,
            tags=tags,
        )
        dag.fileloc = str(file)
        bag.dags[dag_id] = dag
    bag.sync_to_db(processor_subdir=str(FOLDER))
    print(bag.import_errors)


def write_3(dags: dict[str, Any], places: dict[str, list[str]], parsed: bool) -> None:
    """
    Write the DAGs with Airflow 3.
    """
    from airflow.dag_processing import collection
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.sdk import DAG
    from airflow.serialization import serialized_objects
    from airflow.utils.session import create_session

    names = vars(serialized_objects)
    # in 3.0 the latter
    to_dict = (names.get("DagSerialization") or names["SerializedDAG"]).to_dict
    if not parsed:
        collection._sync_dag_perms = lambda *_, **__: None
    errors: dict[tuple[str, str], str] = {}
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
        session.commit()
        made = []
        for dag_id, access_control in dags.items():
            path, *tags = places.get(dag_id, ["dags.py"])
            dag = DAG(
                dag_id,
                schedule=None,
                start_date=FIRST_DAY,
                access_control=access_control,
                tags=set(tags),
            )
            dag.relative_fileloc = path
            made.append(serialized_objects.LazyDeserializedDAG(data=to_dict(dag)))
        update = collection.update_dag_parsing_results_in_db
        # 3.1 and later
        takes_duration = "parse_duration" in inspect.signature(update).parameters
        update(
            "dags-folder",
            None,
            made,
            errors,
            *([None] if takes_duration else []),
            set(),
            session,
        )
    print(errors)


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    write = write_2 if IS_AIRFLOW_2 else write_3
    dags = {i: access_control_of(a) for i, a in wanted["dags"].items()}
    write(dags, wanted["places"], wanted["parsed"])
