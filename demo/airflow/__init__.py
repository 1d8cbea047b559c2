"""
The program of `make demo-airflow`: all four sidecars beside a real Airflow.
"""
