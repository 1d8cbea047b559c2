"""
Finds, configures and runs the image's own Airflow.
"""
