"""
What the sidecars share: settings, logs, metrics, health, the loop, publishing, errors.

A sidecar brings its *cycle* (:class:`sidecar_runtime.sidecar.Sidecar`);
:func:`sidecar_runtime.process.run_daemon` does the rest.
"""

__version__ = "0.1.0"
