"""
Keeps Airflow's roles and DAG permissions in sync.
"""
