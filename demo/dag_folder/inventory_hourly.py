"""Compare the stock with the warehouses' reports."""

import pendulum
from airflow.sdk import dag, task
from shop.extract.inventory import fetch_stock


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    tags=["stock"],
)
def inventory_hourly():
    @task
    def compare() -> dict[str, int]:
        return fetch_stock()

    compare()


inventory_hourly()
