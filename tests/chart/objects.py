"""
What every Kubernetes object in a snippet must satisfy; each check returns complaints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tests.chart import checks
from tests.chart.kubernetes import strict_complaints
from tests.chart.sidecars import SIDECARS, Values

# The settings of the VPC CNI, and the containers that read them.
# https://github.com/aws/amazon-vpc-cni-k8s#cni-configuration-variables
CNI = {
    "aws-vpc-cni-init": {"DISABLE_TCP_EARLY_DEMUX": {"true"}},
    "aws-node": {
        "ENABLE_POD_ENI": {"true"},
        "POD_SECURITY_GROUP_ENFORCING_MODE": {"strict", "standard"},
    },
}
# The keys that a Secret of this name must have, and who wants them.
WANTED_KEYS = {
    "git-credentials": {  # the chart's dags.gitSync.credentialsSecret
        "GIT_SYNC_USERNAME",
        "GITSYNC_USERNAME",
        "GIT_SYNC_PASSWORD",
        "GITSYNC_PASSWORD",
    },
    "registry-auth": {".dockerconfigjson"},  # kubernetes.io/dockerconfigjson
    "airflow-kerberos-keytab": {"airflow.keytab"},  # /etc/keytab/airflow.keytab
    "airflow-metadata": {"connection"},  # the chart's data.metadataSecretName
    "airflow-fernet-key": {"fernet-key"},
    "airflow-api-secret-key": {"api-secret-key"},
    "airflow-jwt-secret": {"jwt-secret"},
    "airflow-webserver-secret-key": {"webserver-secret-key"},
}


def complaints(thing: Values) -> list[str]:
    """
    Run every check on one object.
    """
    name = f"{thing.get('kind')} {thing.get('metadata', {}).get('name')}"
    found = [
        *strict_complaints(thing),
        *checks.label_complaints(thing),
        *checks.resource_complaints(thing),
    ]
    if not found:  # the rest builds on a sound form
        found += [*_pod_complaints(thing), *_secret_complaints(thing)]
    return [f"{name}: {complaint}" for complaint in found]


def patch_complaints(patch: Values) -> list[str]:
    """
    Check a patch of the DaemonSet aws-node: the containers and variables are those that it has.
    """
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "aws-node"},
        **patch,
        "spec": {"selector": {}, **patch.get("spec", {})},
    }
    if found := strict_complaints(daemon_set):
        return found
    pod = patch["spec"]["template"]["spec"]
    given = {
        one["name"]: {variable["name"]: variable.get("value", "") for variable in one["env"]}
        for one in [*pod["initContainers"], *pod["containers"]]
    }
    wrong = {name for name, variables in given.items() if variables.keys() != CNI[name].keys()}
    return [
        *(f"{name} has {sorted(given[name])}" for name in sorted(wrong)),
        *(
            f"{variable}={value}"
            for name in given.keys() - wrong
            for variable, value in given[name].items()
            if value not in CNI[name][variable]
        ),
    ]


def _pod_complaints(thing: Values) -> list[str]:
    """
    Hold our containers against the checks of values: a pod is a component with its containers.
    """
    spec = thing["spec"] if thing["kind"] in ("Deployment", "Pod") else None
    if spec is None:
        return []
    pod = spec["template"]["spec"] if thing["kind"] == "Deployment" else spec
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    others = [one for one in pod["containers"] if one["name"] not in SIDECARS]
    component = {
        "extraInitContainers": pod.get("initContainers", []),
        "extraContainers": [one for one in pod["containers"] if one not in others],
        "extraVolumes": pod.get("volumes", []),
        "extraVolumeMounts": [mount for one in others for mount in one.get("volumeMounts", [])],
        "env": [variable for one in others for variable in one.get("env", [])],
    }
    values = {"pod": component}
    found = [
        *checks.environment_complaints(values),
        *checks.probe_complaints(values),
        *checks.security_complaints(values),
    ]
    mounted = {mount["name"] for one in containers for mount in one.get("volumeMounts", [])}
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    found += [f"nobody mounts {name}" for name in sorted(volumes - mounted)]
    if others:
        found += [*checks.volume_complaints(values), *checks.one_shot_complaints(values)]
    return found


def _secret_complaints(thing: Values) -> Iterator[str]:
    """
    Check that the Secret gets the keys that its readers want, each from one place.
    """
    if thing["kind"] != "ExternalSecret":
        return
    spec, target = thing["spec"], thing["spec"]["target"]
    template = target.get("template", {}).get("data", {})
    made = {one["secretKey"] for one in spec.get("data", [])} | template.keys()
    wanted = WANTED_KEYS.get(target["name"], set())
    if made != wanted:
        yield f"keys are {sorted(made)}, not {sorted(wanted)}"
    if target["name"] != thing["metadata"]["name"]:
        yield "the Secret has another name"
    if ("sourceRef" in str(spec.get("dataFrom"))) == ("secretStoreRef" in spec):
        yield "neither secretStoreRef nor a generator, or both"
    if bool(template) != ("dataFrom" in spec) or ("data" in spec) == ("dataFrom" in spec):
        yield "either data, or dataFrom with a template"
    for one in spec.get("data", []):
        if (
            one["remoteRef"].get("decodingStrategy") == "Auto"
            and one["secretKey"] != "airflow.keytab"
        ):
            yield f"{one['secretKey']} may look like base64 without being it"
    yield from _json_complaints(
        template.get(".dockerconfigjson", '{"auths": {"x": {"auth": "x"}}}')
    )


def _json_complaints(template: str) -> Iterator[str]:
    """
    Check that a template makes what a kubelet reads of `.dockerconfigjson`.
    """
    try:
        document = json.loads(re.sub(r"\{\{ .*? \}\}", "x", template))
    except ValueError as error:
        yield f"is not JSON: {error}"
    else:
        if document != {"auths": {"x": {"auth": "x"}}}:
            yield f"is not a docker configuration: {document}"
