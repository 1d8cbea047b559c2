"""
Creates task pods as the scheduler's KubernetesExecutor does; run by Airflow's own
Python.

Standard input is JSON, a list of pods to create in order:
{"template": path of a pod template, "files": {path: content or null}}. `files` are
written (null: removed) before the pod is created in the Kubernetes API of KUBECONFIG.
"""

import json
import os
import sys
from pathlib import Path
from queue import Queue

from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_types import (
    KubernetesJob,
)
from airflow.providers.cncf.kubernetes.executors.kubernetes_executor_utils import (
    AirflowKubernetesScheduler,
)
from airflow.providers.cncf.kubernetes.kube_client import get_kube_client
from airflow.providers.cncf.kubernetes.kube_config import KubeConfig


class WithoutWatchers(AirflowKubernetesScheduler):  # type: ignore[misc]
    """
    The executor without its watchers, the processes that wait for pods to end.
    """

    def _make_kube_watchers(self) -> dict[str, object]:
        return {}


if __name__ == "__main__":
    client = get_kube_client(in_cluster=False, config_file=os.environ["KUBECONFIG"])
    executor = WithoutWatchers(KubeConfig(), Queue(), client, scheduler_job_id="1")
    for number, wanted in enumerate(json.load(sys.stdin)):
        for path, content in wanted["files"].items():
            Path(path).unlink(missing_ok=True)
            if content is not None:
                Path(path).write_text(content, errors="surrogateescape")
        executor.run_next(
            KubernetesJob(
                key=TaskInstanceKey("sales", f"task{number}", "today", 1, -1),
                command=["airflow", "tasks", "run", "sales", f"task{number}", "today"],
                kube_executor_config=None,
                pod_template_file=wanted["template"],
            )
        )
    executor._manager.shutdown()
