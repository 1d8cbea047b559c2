"""Operators of the company, as an Airflow plugin."""

from airflow.plugins_manager import AirflowPlugin


class CompanyOperators(AirflowPlugin):
    """What Airflow loads."""

    name = "company_operators"
