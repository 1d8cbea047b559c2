"""
Task pods of the KubernetesExecutor get the release that is published beside the scheduler.

For: `helm upgrade … --set-file airflowLocalSettings=airflow_local_settings.py`; Airflow 2.7 on.
The scheduler needs an s3-sync of its own, whose folder it mounts: s3-sync.release.yaml.
With DAG versions (Airflow 3, s3-sync.versions.yaml) tasks ask for the release of their run instead.
Change: DEST_PATH here, or as a variable of the scheduler, where its folder is another one.

A pod that is not pinned takes the release that is current when it starts, as without this file.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

# Airflow takes every other public name for one of its own settings: `log` would replace its log.
__all__ = ["pod_mutation_hook"]

DEST_PATH = Path(os.environ.get("DEST_PATH", "/opt/airflow/dags"))
CONTAINER = "s3-sync"

_log = logging.getLogger(__name__)


def pod_mutation_hook(pod: Any) -> None:
    """
    Pin the s3-sync init container of a pod that Airflow is about to create.

    Airflow calls it for each task pod and each KubernetesPodOperator, and fails the task where it
    raises; so it never does. Pods without that container stay as they are.
    """
    try:
        for container in pod.spec.init_containers or ():
            if container.name == CONTAINER:
                _pin(container)
    except Exception:
        _log.exception("A pod was not pinned to a release: it takes the current one")


def _pin(container: Any) -> None:
    """
    Give the container S3_SYNC_REVISION, unless something speaks against it.
    """
    variables = {variable.name: variable.value for variable in container.env or ()}
    if "S3_SYNC_REVISION" in variables:
        return
    path = DEST_PATH / ".s3-sync" / "published.json"
    try:
        published = json.loads(path.read_bytes())
        kind, source = published["kind"], published["source"]
        revision = published["revision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no published release in {path} ({type(error).__name__}: {error})"
    else:
        reason = _objection(kind, source, revision, variables)
    if reason:
        _log.warning("A task pod takes the current release, whichever that is: %s", reason)
        return
    from kubernetes.client import V1EnvVar  # what made the pod; other components may lack it

    container.env.append(V1EnvVar(name="S3_SYNC_REVISION", value=revision))
    _log.info("A task pod gets release %s", revision)


def _objection(kind: Any, source: Any, revision: Any, variables: dict[str, str | None]) -> str:
    """
    Return why the pod cannot be given this revision; empty where it can.
    """
    if kind != "release" or not isinstance(revision, str) or not revision:
        return f"{DEST_PATH} does not publish a release; set S3_SYNC_SOURCE=release there"
    if variables.get("S3_SYNC_SOURCE") != "release":
        return f"S3_SYNC_SOURCE of its init container {CONTAINER} is not release"
    bucket, prefix = variables.get("AWS_BUCKET"), variables.get("KEY_PATH") or ""
    wanted = f"s3://{bucket}/{prefix.strip('/')}".rstrip("/")
    if bucket and wanted != str(source).rstrip("/"):
        return f"it reads {wanted}, and the scheduler {source}"
    return ""
