"""
The sidecars in values of the official Airflow Helm chart. It needs only Python's
standard library.
"""
