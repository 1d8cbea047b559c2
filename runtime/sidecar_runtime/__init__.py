"""
What the sidecars share: settings, logs, metrics, health, the loop, publishing, errors.

A sidecar brings one function, its *cycle*; :func:`sidecar_runtime.loop.run` does the rest.
"""

__version__ = "0.1.0.dev0"
