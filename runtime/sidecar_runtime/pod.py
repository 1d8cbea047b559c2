"""
The identity of this pod, as far as it is known.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

# https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def find_pod(environ: Mapping[str, str], namespace_file: str = _NAMESPACE_FILE) -> dict[str, str]:
    """
    Return ``name``, ``namespace`` and ``node``, each empty if unknown.

    They come from ``POD_NAME``, ``POD_NAMESPACE`` and ``NODE_NAME`` (downward API). Without these,
    the name is the host name, the namespace is that of the service account, and the node unknown.
    """
    namespace = environ.get("POD_NAMESPACE", "")
    if not namespace:
        try:
            with open(namespace_file) as file:
                namespace = file.read().strip()
        except (OSError, ValueError):
            pass
    return {
        "name": environ.get("POD_NAME") or socket.gethostname(),
        "namespace": namespace,
        "node": environ.get("NODE_NAME", ""),
    }
