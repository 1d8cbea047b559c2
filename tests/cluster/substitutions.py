"""
All changes to the rendered objects before they are created: one table for pods with a reader
instead of Airflow, and one for a real Airflow.

Nothing else changes. The sidecars keep their probes, resources and security contexts; variables
and mounts are only added, except for the addresses of the bucket and of the git repository.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chart import pods
from tests.chart.sidecars import DAGS_FOLDER, Values, sidecar_of
from tests.support.aws.servers import REGION

ROLE = "eks.amazonaws.com/role-arn"
TOKEN = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
# The key of the chart's ConfigMap with the template of task pods.
TASK_POD = "pod_template_file.yaml"
# The certificate of every API server contains this name.
KUBERNETES = "kubernetes.default.svc"
# The bucket of files to paste.
BUCKET = "my-airflow-bucket"


@dataclass(frozen=True)
class Site:
    """
    The images and addresses that the substitutions use.

    Args:
        airflow_image: The image that runs as Airflow, or instead of it.
        our_image: Returns the image of a sidecar, by its name.
        bucket: Replaces `my-airflow-bucket`; None keeps that name.
        repository: The URL of a git repository with the DAGs, if there is one.
        kubernetes: Where pods reach the API server of Kubernetes, if not at its own address.
    """

    s3_endpoint: str
    airflow_image: str
    our_image: Callable[[str], str]
    bucket: str | None = None
    repository: str | None = None
    kubernetes: tuple[str, int] | None = None


@dataclass(frozen=True)
class Substitution:
    """
    Args:
        what: The change and its reason.
        change: Changes the objects, including the task pod, in place.
    """

    what: str
    change: Callable[[list[Values], Site], object]


def specs(objects: list[Values]) -> Iterator[Values]:
    """
    Yield the specification of every pod.
    """
    for one in objects:
        if one["kind"] == "Pod":
            yield one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]["spec"]


def leave_out_airflow_alone(objects: list[Values], _: Site) -> None:
    """
    Remove jobs, and workloads without a sidecar.
    """
    objects[:] = [
        one
        for one in objects
        if one["kind"] != "Job"
        and all(any(map(sidecar_of, pods.containers(spec))) for spec in specs([one]))
    ]


def fill_in_the_task_pod(objects: list[Values], site: Site) -> None:
    """
    Set the name and the image of the task pod.
    """
    for one in objects:
        if one["kind"] == "Pod":
            one["metadata"]["name"] = "task"
            (base,) = one["spec"]["containers"]
            base["image"] = site.airflow_image


def read_instead_of_airflow(objects: list[Values], _: Site) -> None:
    """
    Run the reader instead of Airflow; it watches if a DAG folder and airflow.cfg are mounted.
    """
    for spec in specs(objects):
        for container in pods.containers(spec):
            if sidecar_of(container):
                continue
            paths = {mount["mountPath"] for mount in container.get("volumeMounts") or []}
            reads = "/opt/airflow/airflow.cfg" in paths and bool({DAGS_FOLDER, "/git"} & paths)
            for key in ("livenessProbe", "readinessProbe", "startupProbe", "args"):
                container.pop(key, None)
            container["command"] = ["python3", "/reader.py", "watch" if reads else "idle"]
        for container in spec.get("initContainers") or []:
            if not sidecar_of(container):
                container["command"] = ["true"]


def give_the_role(objects: list[Values], _: Site) -> None:
    """
    Add the token and variables that EKS's webhook adds for a service account with a role.

    https://github.com/aws/amazon-eks-pod-identity-webhook
    """
    roles = {
        one["metadata"]["name"]: (one["metadata"].get("annotations") or {}).get(ROLE)
        for one in objects
        if one["kind"] == "ServiceAccount"
    }
    for spec in specs(objects):
        role = roles.get(spec["serviceAccountName"])
        if role is None:
            continue
        source = {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}
        projected = {"sources": [{"serviceAccountToken": source}]}
        spec["volumes"].append({"name": "aws-iam-token", "projected": projected})
        for container in pods.containers(spec):
            _add_variables(
                container,
                AWS_STS_REGIONAL_ENDPOINTS="regional",
                AWS_DEFAULT_REGION=REGION,
                AWS_REGION=REGION,
                AWS_ROLE_ARN=role,
                AWS_WEB_IDENTITY_TOKEN_FILE=f"{TOKEN}/token",
            )
            mount = {"name": "aws-iam-token", "mountPath": TOKEN, "readOnly": True}
            container.setdefault("volumeMounts", []).append(mount)


def lead_to_the_server(objects: list[Values], site: Site) -> None:
    """
    Set AWS_ENDPOINT_URL of s3-sync to the tests' server.
    """
    for spec in specs(objects):
        for container in pods.containers(spec):
            if container["name"] == "s3-sync":
                _add_variables(container, AWS_ENDPOINT_URL=site.s3_endpoint)


def take_our_images(objects: list[Values], site: Site) -> None:
    """
    Set the images of the sidecars to those of this commit.
    """
    for spec in specs(objects):
        for container in pods.containers(spec):
            if name := sidecar_of(container):
                container["image"] = site.our_image(name)


def lead_to_the_dags(objects: list[Values], site: Site) -> None:
    """
    Replace the bucket and the git repository of files to paste.
    """
    for spec in specs(objects):
        for container in pods.containers(spec):
            for one in container.get("env") or []:
                if site.repository and one["name"] in ("GITSYNC_REPO", "GIT_SYNC_REPO"):
                    one["value"] = site.repository
                if site.bucket and (one["name"], one.get("value")) == ("AWS_BUCKET", BUCKET):
                    one["value"] = site.bucket


def bring_the_claims(objects: list[Values], _: Site) -> None:
    """
    Replace claims of StatefulSets, and claims that the chart does not create, with emptyDirs.
    """
    for one in objects:
        for claim in one.get("spec", {}).pop("volumeClaimTemplates", None) or []:
            volume = {"name": claim["metadata"]["name"], "emptyDir": {}}
            one["spec"]["template"]["spec"]["volumes"].append(volume)
    made = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    for spec in specs(objects):
        for volume in spec.get("volumes") or []:
            claim = volume.get("persistentVolumeClaim")
            if claim is not None and claim["claimName"] not in made:
                del volume["persistentVolumeClaim"]
                volume["emptyDir"] = {}


def ask_only_whether_it_is_ready(objects: list[Values], _: Site) -> None:
    """
    Remove liveness and startup probes, so that no probe kills Airflow.
    """
    for spec in specs(objects):
        for container in spec["containers"]:
            for key in ("livenessProbe", "startupProbe"):
                container.pop(key, None)


def lead_to_kubernetes(objects: list[Values], site: Site) -> None:
    """
    Set the address of the API server, under a name in its certificate.
    """
    assert site.kubernetes is not None
    host, port = site.kubernetes
    for spec in specs(objects):
        spec["hostAliases"] = [{"ip": host, "hostnames": [KUBERNETES]}]
        for container in spec["containers"]:
            _add_variables(
                container, KUBERNETES_SERVICE_HOST=KUBERNETES, KUBERNETES_SERVICE_PORT=str(port)
            )


def _add_variables(container: Values, **variables: str) -> None:
    added = [{"name": name, "value": value} for name, value in variables.items()]
    container["env"] = [*(container.get("env") or []), *added]


_IN_BOTH = (
    Substitution(
        "The sidecars use images of this commit: the values files tell users to change them.",
        take_our_images,
    ),
    Substitution(
        "Pods of a service account with a role receive its token and variables, which a webhook "
        "adds on EKS.",
        give_the_role,
    ),
    Substitution(
        "AWS_ENDPOINT_URL of s3-sync is the tests' own server, because AWS is not available.",
        lead_to_the_server,
    ),
)
WITHOUT_AIRFLOW = (
    Substitution(
        "Jobs, and pods without a sidecar, are removed: they would only run Airflow.",
        leave_out_airflow_alone,
    ),
    Substitution(
        "The task pod receives a name and Airflow's image, as from the KubernetesExecutor.",
        fill_in_the_task_pod,
    ),
    Substitution(
        "Airflow's containers run reader.py without probes: the tests are about the sidecars, and "
        "the probes would need Airflow.",
        read_instead_of_airflow,
    ),
    Substitution(
        "Bucket and git repository are those of the tests: users replace them with their own.",
        lead_to_the_dags,
    ),
    Substitution(
        "A claim of the user or of a StatefulSet becomes an emptyDir: the cluster may be unable to "
        "provision volumes, and only one pod uses each claim.",
        bring_the_claims,
    ),
    *_IN_BOTH,
)
WITH_AIRFLOW = (
    Substitution(
        "Airflow has no liveness or startup probes: on a busy machine it needs longer than they "
        "allow, and some of them start another Airflow process each minute.",
        ask_only_whether_it_is_ready,
    ),
    Substitution(
        "Pods reach the API server of Kubernetes through this machine, under its own name: the "
        "cluster may have neither Services nor DNS.",
        lead_to_kubernetes,
    ),
    *_IN_BOTH,
)


def substitute(table: tuple[Substitution, ...], objects: list[Values], site: Site) -> list[Values]:
    """
    Apply a table to the objects in place, and return them.
    """
    for one in table:
        one.change(objects, site)
    return objects
