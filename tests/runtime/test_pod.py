"""
The identity of the pod, from the downward API or from other sources.
"""

import socket
from pathlib import Path

from sidecar_runtime.pod import find_pod


def test_uses_the_downward_api(tmp_path: Path) -> None:
    given = {"POD_NAME": "box-0", "POD_NAMESPACE": "airflow", "NODE_NAME": "node-1"}

    found = find_pod(given, str(tmp_path / "namespace"))
    assert {"name": "box-0", "namespace": "airflow", "node": "node-1"} == found


def test_falls_back_to_host_name_and_service_account_namespace(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("airflow\n")

    found = find_pod({}, str(tmp_path / "namespace"))
    assert {"name": socket.gethostname(), "namespace": "airflow", "node": ""} == found


def test_the_namespace_is_empty_outside_kubernetes(tmp_path: Path) -> None:
    assert "" == find_pod({}, str(tmp_path / "namespace"))["namespace"]
