"""
The gate ``airflow``: a real Airflow loads what would be released.

``runner`` is the program that its Python runs, ``answer`` reads what it says, ``check`` joins them.
"""
