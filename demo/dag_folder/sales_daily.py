"""Load yesterday's orders, build the marts, mail the report."""

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task
from shop.orders import copy_orders, fetch_orders
from shop.settings import load_settings


@dag(
    schedule="0 4 * * *",
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["sales"],
)
def sales_daily():
    @task
    def extract(ds: str) -> str:
        return fetch_orders(day=ds, settings=load_settings())

    @task
    def load(path: str) -> int:
        return copy_orders(path)

    load(extract())


sales_daily()
