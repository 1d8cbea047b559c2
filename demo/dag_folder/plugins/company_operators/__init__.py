"""The company's operators as an Airflow plugin."""

from airflow.plugins_manager import AirflowPlugin


class CompanyOperators(AirflowPlugin):
    """The plugin."""

    name = "company_operators"
