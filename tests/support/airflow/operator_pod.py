"""
Prints the pods that the KubernetesPodOperator creates from templates; run by Airflow's Python.

    python operator_pod.py KUBECONFIG TEMPLATE...

It contacts no API server: the kubeconfig only has to be valid.
"""

from __future__ import annotations

import json
import sys

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from kubernetes.client import ApiClient


def main(kubeconfig: str, *templates: str) -> None:
    for template in templates:
        print_pod(template, kubeconfig)


def print_pod(template: str, kubeconfig: str) -> None:
    operator = KubernetesPodOperator(
        task_id="report",
        pod_template_file=template,
        image="registry.example.com/report:1.4.0",
        cmds=["python", "-m", "report"],
        env_vars={"REPORT": "daily"},
        namespace="airflow",
        config_file=kubeconfig,
        in_cluster=False,
    )
    pod = ApiClient().sanitize_for_serialization(operator.build_pod_request_obj())
    # Airflow itself writes to standard output.
    sys.stdout.write(f"\nPOD {json.dumps(pod)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
