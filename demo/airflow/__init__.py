"""
What `make demo-airflow` runs: all four sidecars beside a real Airflow.
"""
