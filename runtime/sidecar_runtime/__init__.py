"""
Code that the sidecars share: settings, logs, metrics, health, the loop, publishing, errors.

A sidecar implements its *cycle* (:class:`sidecar_runtime.sidecar.Sidecar`);
:func:`sidecar_runtime.app.run_daemon` does the rest.
"""

__version__ = "0.3.0"
# The documentation; every copy of it has the same file names.
DOCS = "https://github.com/airflow-sidecars/airflow-sidecars/blob/main/docs"
