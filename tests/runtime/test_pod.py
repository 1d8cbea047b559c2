"""
The identity of the pod: from the downward API, or from other sources.
"""

import socket
from pathlib import Path

from sidecar_runtime.pod import find_pod


def test_the_downward_api_says_it(tmp_path: Path) -> None:
    given = {"POD_NAME": "box-0", "POD_NAMESPACE": "airflow", "NODE_NAME": "node-1"}

    found = find_pod(given, str(tmp_path / "namespace"))
    assert {"name": "box-0", "namespace": "airflow", "node": "node-1"} == found


def test_without_it_the_host_and_the_service_account_do(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("airflow\n")

    found = find_pod({}, str(tmp_path / "namespace"))
    assert {"name": socket.gethostname(), "namespace": "airflow", "node": ""} == found


def test_outside_of_kubernetes_there_is_no_namespace(tmp_path: Path) -> None:
    assert "" == find_pod({}, str(tmp_path / "namespace"))["namespace"]
