"""
Give task pods of the KubernetesExecutor the release or commit that the scheduler has.

For: `helm upgrade … --set-file airflowLocalSettings=airflow_local_settings.py`; Airflow
2.11 and 3. The scheduler needs its own sidecar and mounts its folder, and task pods the
sidecar as an init container: `make values SOURCE=release EXECUTOR=KubernetesExecutor`
prints both. With DAG versions (Airflow 3, VERSIONS=1), tasks request the version of
their run instead. Change: DEST_PATH and GITSYNC_ROOT if yours differ, here or as
variables of the scheduler.

A pod that is not pinned uses the version that is current when it starts, as without
this file.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

# Airflow would treat any other public name as one of its settings: `log` would replace
# its log.
__all__ = ["pod_mutation_hook"]

DEST_PATH = Path(os.environ.get("DEST_PATH", "/opt/airflow/dags"))
GITSYNC_ROOT = Path(os.environ.get("GITSYNC_ROOT", "/git"))

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_LOGIN = re.compile("(?<=://)[^/@]*@")

_log = logging.getLogger(__name__)


def pod_mutation_hook(pod: Any) -> None:
    """
    Pin the init container of s3-sync or git-sync-wrapper in a pod that Airflow is about
    to create.

    Airflow calls this for each task pod and each KubernetesPodOperator, and fails the
    task if it raises, so it never raises. Pods without such a container stay unchanged.
    """
    try:
        for container in pod.spec.init_containers or ():
            if container.name == "s3-sync":
                _pin(container, "S3_SYNC_REVISION", _release)
            # A native sidecar runs beside the task and follows its ref.
            elif container.name == "git-sync-wrapper" and not _is_native(container):
                _pin(container, "GITSYNC_REF", _commit)
    except Exception:
        _log.exception("A pod was not pinned: it uses the current version")


class _Unpinned(Exception):
    """
    The pod cannot be pinned; the message contains the reason.
    """


def _is_native(container: Any) -> bool:
    return getattr(container, "restart_policy", None) == "Always"


def _pin(container: Any, name: str, find: Any) -> None:
    """
    Set a variable of the container to the scheduler's revision, if the pod can be
    pinned.
    """
    try:
        revision = find(container, {one.name: one.value for one in container.env or ()})
    except _Unpinned as reason:
        _log.warning("A task pod uses the current version, because %s", reason)
        return
    if not revision:
        return
    from kubernetes.client import V1EnvVar  # only components that create pods need it

    others = [variable for variable in container.env if variable.name != name]
    container.env = [*others, V1EnvVar(name=name, value=revision)]
    _log.info("A task pod gets %s", revision)


def _release(_: Any, variables: dict[str, str | None]) -> str:
    """
    Return the scheduler's release from s3-sync; empty if the pod has its own.
    """
    if "S3_SYNC_REVISION" in variables:
        return ""
    kind, source, revision = _published(
        DEST_PATH / ".s3-sync", "kind", "source", "revision"
    )
    if kind != "release" or not isinstance(revision, str) or not revision:
        raise _Unpinned(
            f"{DEST_PATH} does not publish a release; set S3_SYNC_SOURCE=release there"
        )
    if (variables.get("S3_SYNC_SOURCE") or "").strip().lower() != "release":
        raise _Unpinned("S3_SYNC_SOURCE of its init container s3-sync is not release")
    bucket = (variables.get("AWS_BUCKET") or "").strip()
    prefix = variables.get("KEY_PATH", "")
    wanted = f"s3://{bucket}"
    known = str(source).rstrip("/")
    # from a ConfigMap or a Secret, so it is unknown here, as a bucket may be
    if prefix is None:
        is_same = f"{known}/".startswith(f"{wanted}/")
    else:
        wanted = f"{wanted}/{prefix.strip().strip('/')}".rstrip("/")
        is_same = wanted == known
    if bucket and not is_same:
        raise _Unpinned(f"it reads {wanted}, but the scheduler reads {source}")
    return revision


def _commit(container: Any, variables: dict[str, str | None]) -> str:
    """
    Return the scheduler's commit from git-sync-wrapper; empty if the pod has its own.
    """
    ref = variables.get("GITSYNC_REF")
    if container.args or not ref:
        raise _Unpinned("its env has no GITSYNC_REF, or its arguments take precedence")
    if _COMMIT.fullmatch(ref):
        return ""
    repo, known_ref, revision = _published(
        GITSYNC_ROOT / ".snapshots", "repo", "ref", "revision"
    )
    if not isinstance(revision, str) or not _COMMIT.fullmatch(revision):
        raise _Unpinned(f"{GITSYNC_ROOT} does not publish a commit")
    wanted, known = (
        _LOGIN.sub("", str(one)) for one in (variables.get("GITSYNC_REPO"), repo)
    )
    if (wanted, ref) != (known, known_ref):
        raise _Unpinned(
            f"it reads {ref} of {wanted}, but the scheduler {known_ref} of {known}"
        )
    return revision


def _published(folder: Path, *names: str) -> list[Any]:
    """
    Return values of a sidecar's published.json.
    """
    path = folder / "published.json"
    try:
        published = json.loads(path.read_bytes())
        return [published[name] for name in names]
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise _Unpinned(f"nothing is published in {path} ({found})") from None
