"""
All that is changed of what the chart renders, before the cluster gets it: one table for pods in
which a reader runs instead of Airflow, one for a real Airflow.

Nothing else is: our containers keep their variables, probes, resources, mounts and security
contexts; a variable is added where it is the cloud that adds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chart import pods
from tests.chart.sidecars import DAGS_FOLDER, Values
from tests.chart.start import sidecar_of
from tests.support.servers import REGION

ROLE = "eks.amazonaws.com/role-arn"
TOKEN = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
# The chart's template for task pods, as an object of its own.
TASK_POD = "pod_template_file.yaml"
# The certificates of all API servers have this name.
KUBERNETES = "kubernetes.default.svc"
# Of files to paste.
BUCKET = "my-airflow-bucket"


@dataclass(frozen=True)
class Site:
    """
    What is around the cluster.

    Args:
        airflow_image: What runs as Airflow, or instead of it.
        our_image: The image of a sidecar, by its name.
        bucket: The one that is there instead of `my-airflow-bucket`; None: that one is.
        repository: The address of a git repository with the DAGs; None: there is none.
        kubernetes: Where pods reach the API server of Kubernetes; None: where it says itself.
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
        what: What is there instead, and why.
        change: Changes the objects in place; the task pod is one of them.
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
    Leave out jobs, and pods that have none of our containers.
    """
    objects[:] = [
        one
        for one in objects
        if one["kind"] != "Job"
        and all(any(map(sidecar_of, pods.containers(spec))) for spec in specs([one]))
    ]


def fill_in_the_task_pod(objects: list[Values], site: Site) -> None:
    """
    Name the task pod and its image.
    """
    for one in objects:
        if one["kind"] == "Pod":
            one["metadata"]["name"] = "task"
            (base,) = one["spec"]["containers"]
            base["image"] = site.airflow_image


def read_instead_of_airflow(objects: list[Values], _: Site) -> None:
    """
    Let each container of Airflow's read DAGs, where it has a DAG folder and airflow.cfg.
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
    Add to each container what EKS's webhook adds for a service account with a role.

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
    Tell s3-sync where AWS is.
    """
    for spec in specs(objects):
        for container in pods.containers(spec):
            if container["name"] == "s3-sync":
                _add_variables(container, AWS_ENDPOINT_URL=site.s3_endpoint)


def take_our_images(objects: list[Values], site: Site) -> None:
    """
    Name the images of this commit.
    """
    for spec in specs(objects):
        for container in pods.containers(spec):
            if name := sidecar_of(container):
                container["image"] = site.our_image(name)


def lead_to_the_dags(objects: list[Values], site: Site) -> None:
    """
    Tell s3-sync and git-sync where the DAGs are, in files to paste.
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
    Give a pod a folder of its own where it has a claim that the chart does not make, or that its
    StatefulSet would make.
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
    Leave Airflow the one probe that kills nothing.
    """
    for spec in specs(objects):
        for container in spec["containers"]:
            for key in ("livenessProbe", "startupProbe"):
                container.pop(key, None)


def lead_to_kubernetes(objects: list[Values], site: Site) -> None:
    """
    Tell Airflow where the API server is, by a name that its certificate has.
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
        "Our images are those of this commit: the files say to change them.",
        take_our_images,
    ),
    Substitution(
        "Pods of a service account with a role have its token and variables: on EKS a webhook "
        "adds them.",
        give_the_role,
    ),
    Substitution(
        "AWS_ENDPOINT_URL leads s3-sync to the tests' own server: there is no AWS.",
        lead_to_the_server,
    ),
)
WITHOUT_AIRFLOW = (
    Substitution(
        "No jobs, and no pods without a sidecar of ours: they would only run Airflow.",
        leave_out_airflow_alone,
    ),
    Substitution(
        "A task pod has a name and Airflow's image: the KubernetesExecutor fills them in.",
        fill_in_the_task_pod,
    ),
    Substitution(
        "Airflow's containers read files (reader.py): it is the sidecars that are tried, and "
        "Airflow's own probes would ask Airflow.",
        read_instead_of_airflow,
    ),
    Substitution(
        "Bucket and git repository are those of the tests: the files to paste say to change them.",
        lead_to_the_dags,
    ),
    Substitution(
        "A claim that the user brings, or that is a pod's own, is an emptyDir: the cluster may "
        "provision nothing, and only the pod that writes it reads it.",
        bring_the_claims,
    ),
    *_IN_BOTH,
)
WITH_AIRFLOW = (
    Substitution(
        "Airflow has no probes that end it: on a busy machine it takes longer than they allow, and "
        "some of them start another Airflow each minute.",
        ask_only_whether_it_is_ready,
    ),
    Substitution(
        "The API server of Kubernetes is reached by way of this machine, under its own name: the "
        "cluster may have neither Services nor DNS.",
        lead_to_kubernetes,
    ),
    *_IN_BOTH,
)


def substitute(table: tuple[Substitution, ...], objects: list[Values], site: Site) -> list[Values]:
    """
    Apply a whole table; the objects are changed in place.
    """
    for one in table:
        one.change(objects, site)
    return objects
