"""
What consumers ask for: revisions that are not on the volume any more, or not yet.

DAG versions of Airflow need them: a run ends on the code that it began with.
"""
