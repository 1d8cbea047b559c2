"""Delete rows of the metadata database that are older than 90 days."""

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    "db_cleanup",
    schedule="@weekly",
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
):
    BashOperator(
        task_id="clean",
        bash_command="airflow db clean --yes --clean-before-timestamp {{ macros.ds_add(ds, -90) }}",
    )
