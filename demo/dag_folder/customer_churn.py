"""Score every customer once a week."""

import pendulum
from airflow.sdk import dag, task
from shop.transform.features import churn_features


@dag(
    schedule="0 6 * * 1",
    start_date=pendulum.datetime(2025, 1, 6, tz="UTC"),
    catchup=False,
    tags=["ml"],
)
def customer_churn():
    @task
    def score() -> int:
        return len(churn_features(window_days=90))

    score()


customer_churn()
