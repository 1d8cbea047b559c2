"""
The image's own Airflow: found, configured, and run for a pass.
"""
