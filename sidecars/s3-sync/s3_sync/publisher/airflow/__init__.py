"""
The gate ``airflow``: a real Airflow loads the files that would be released.

``runner`` is the program that its Python runs, ``answer`` reads its output, ``check`` joins both.
"""
