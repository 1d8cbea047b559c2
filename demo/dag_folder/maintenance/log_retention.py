"""Delete old task logs."""

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    "log_retention",
    schedule="@daily",
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
):
    BashOperator(
        task_id="delete", bash_command="find /opt/airflow/logs -mtime +30 -delete"
    )
