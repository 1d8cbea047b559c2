"""Count the stock."""

import pendulum

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task


@dag(
    schedule=None,
    start_date=pendulum.datetime(2025, 1, 1),
    access_control={"Viewer": {"can_edit"}, "team_stock": {"can_read"}},
)
def stock_hourly():
    @task
    def count():
        return 7

    count()


stock_hourly()
