"""
On the path of Airflow's Python in place of the client of Kubernetes.
"""

raise ImportError("left out, because `import airflow` takes half as long without it")
