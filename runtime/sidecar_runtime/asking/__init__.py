"""
Requests of consumers for revisions that the volume does not contain.

Airflow's DAG versions need them: a run finishes with the code that it started with.
"""
