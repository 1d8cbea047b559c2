"""
What the sidecars share: settings, logs, metrics, health, the loop, publishing, errors.

A sidecar brings its *cycle* (:class:`sidecar_runtime.sidecar.Sidecar`);
:func:`sidecar_runtime.process.run_daemon` does the rest.
"""

__version__ = "0.2.0"
# Where people read about it; the names of files are the same on any copy.
DOCS = "https://github.com/airflow-sidecars/airflow-sidecars/blob/main/docs"
