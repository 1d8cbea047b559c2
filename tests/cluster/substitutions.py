"""
All changes to the rendered objects before they are created, with a reader instead of
Airflow.

Nothing else changes. The sidecars keep their probes, resources and security contexts;
variables and mounts are only added, except for the addresses of the bucket and of the
git repository.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chart import pods
from tests.chart.sidecars import DAGS_FOLDER, Values, sidecar_of
from tests.support.aws.servers import REGION

ROLE = "eks.amazonaws.com/role-arn"
TOKEN = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
# The key of the chart's ConfigMap with the template of task pods.
TASK_POD = "pod_template_file.yaml"
# The bucket of files to paste.
BUCKET = "my-airflow-bucket"


@dataclass(frozen=True)
class Site:
    """
    The images and addresses that the substitutions use.

    Args:
        airflow_image: The image that runs instead of Airflow.
        our_image: Returns the image of a sidecar, by its name.
        bucket: Replaces `my-airflow-bucket`; None keeps that name.
        repository: The URL of a git repository with the DAGs, if there is one.
    """

    s3_endpoint: str
    airflow_image: str
    our_image: Callable[[str], str]
    bucket: str | None = None
    repository: str | None = None


def specs(objects: list[Values]) -> Iterator[Values]:
    """
    Yield the specification of every pod.
    """
    for one in objects:
        if one["kind"] == "Pod":
            yield one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet"):
            yield one["spec"]["template"]["spec"]


def containers(objects: list[Values]) -> list[Values]:
    """
    Return the containers of every pod.
    """
    return [container for spec in specs(objects) for container in pods.containers(spec)]


def leave_out_airflow_alone(objects: list[Values], _: Site) -> None:
    """
    Remove jobs, and workloads without a sidecar: they would only run Airflow.
    """
    objects[:] = [
        one
        for one in objects
        if one["kind"] != "Job"
        and all(any(map(sidecar_of, pods.containers(spec))) for spec in specs([one]))
    ]


def fill_in_the_task_pod(objects: list[Values], site: Site) -> None:
    """
    Set the name and the image of the task pod, as the KubernetesExecutor does.
    """
    for one in objects:
        if one["kind"] == "Pod":
            one["metadata"]["name"] = "task"
            one["spec"]["containers"][0]["image"] = site.airflow_image


def read_instead_of_airflow(objects: list[Values], _: Site) -> None:
    """
    Run the reader instead of Airflow, without probes, which would need Airflow.
    """
    for spec in specs(objects):
        for container in pods.containers(spec):
            if sidecar_of(container):
                continue
            paths = {
                mount["mountPath"] for mount in container.get("volumeMounts") or []
            }
            reads = "/opt/airflow/airflow.cfg" in paths and bool(
                {DAGS_FOLDER, "/git"} & paths
            )
            for key in ("livenessProbe", "readinessProbe", "startupProbe", "args"):
                container.pop(key, None)
            is_init = container in (spec.get("initContainers") or [])
            program = ["python3", "/reader.py", "follow" if reads else "idle"]
            container["command"] = ["true"] if is_init else program


def give_the_role(objects: list[Values], _: Site) -> None:
    """
    Add the token and variables that EKS's webhook adds for a service account with a
    role.

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
        spec["volumes"].append(
            {
                "name": "aws-iam-token",
                "projected": {
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": "sts.amazonaws.com",
                                "expirationSeconds": 86400,
                                "path": "token",
                            }
                        }
                    ]
                },
            }
        )
        for container in pods.containers(spec):
            _add_variables(
                container,
                AWS_STS_REGIONAL_ENDPOINTS="regional",
                AWS_DEFAULT_REGION=REGION,
                AWS_REGION=REGION,
                AWS_ROLE_ARN=role,
                AWS_WEB_IDENTITY_TOKEN_FILE=f"{TOKEN}/token",
            )
            container.setdefault("volumeMounts", []).append(
                {"name": "aws-iam-token", "mountPath": TOKEN, "readOnly": True}
            )


def lead_to_this_machine(objects: list[Values], site: Site) -> None:
    """
    Set the sidecars' images to those of this commit, the endpoint of s3-sync to the
    tests' server, because AWS is not available, and replace the bucket and the git
    repository of files to paste.
    """
    for container in containers(objects):
        if name := sidecar_of(container):
            container["image"] = site.our_image(name)
        if container["name"] == "s3-sync":
            _add_variables(container, AWS_ENDPOINT_URL=site.s3_endpoint)
        for one in container.get("env") or []:
            if site.repository and one["name"] in ("GITSYNC_REPO", "GIT_SYNC_REPO"):
                one["value"] = site.repository
            if site.bucket and (one["name"], one.get("value")) == (
                "AWS_BUCKET",
                BUCKET,
            ):
                one["value"] = site.bucket


def bring_the_claims(objects: list[Values], _: Site) -> None:
    """
    Replace claims of StatefulSets, and claims that the chart does not create, with
    emptyDirs.
    """
    for one in objects:
        for claim in one.get("spec", {}).pop("volumeClaimTemplates", None) or []:
            volume = {"name": claim["metadata"]["name"], "emptyDir": {}}
            one["spec"]["template"]["spec"]["volumes"].append(volume)
    made = {
        one["metadata"]["name"]
        for one in objects
        if one["kind"] == "PersistentVolumeClaim"
    }
    for spec in specs(objects):
        for volume in spec.get("volumes") or []:
            claim = volume.get("persistentVolumeClaim")
            if claim and claim["claimName"] not in made:
                del volume["persistentVolumeClaim"]
                volume["emptyDir"] = {}


def _add_variables(container: Values, **variables: str) -> None:
    container["env"] = [
        *(container.get("env") or []),
        *[{"name": name, "value": value} for name, value in variables.items()],
    ]


_CHANGES: tuple[Callable[[list[Values], Site], None], ...] = (
    leave_out_airflow_alone,
    fill_in_the_task_pod,
    read_instead_of_airflow,
    bring_the_claims,
    give_the_role,
    lead_to_this_machine,
)
"""The changes, in order; each function says what it changes and why."""


def substitute(objects: list[Values], site: Site) -> list[Values]:
    """
    Apply all changes to the objects in place, and return them.
    """
    for change in _CHANGES:
        change(objects, site)
    return objects
