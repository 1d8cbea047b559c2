"""Delete old rows of the metadata database."""

import pendulum

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task


@dag(schedule=None, start_date=pendulum.datetime(2025, 1, 1))
def db_cleanup():
    @task
    def delete():
        return 0

    delete()


db_cleanup()
