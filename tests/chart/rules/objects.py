"""
Checks for the Kubernetes objects in snippets; each returns its complaints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tests.chart.rules import checks
from tests.chart.rules.kubernetes import strict_complaints
from tests.chart.rules.sidecars import SIDECARS, Values

# The settings of the VPC CNI, by the container that reads them.
# https://github.com/aws/amazon-vpc-cni-k8s#cni-configuration-variables
CNI = {
    "aws-vpc-cni-init": {"DISABLE_TCP_EARLY_DEMUX": {"true"}},
    "aws-node": {
        "ENABLE_POD_ENI": {"true"},
        "POD_SECURITY_GROUP_ENFORCING_MODE": {"strict", "standard"},
    },
}
# The keys that each Secret must have, and what requires them.
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
    if not found:  # the other checks assume a valid form
        found += [*_pod_complaints(thing), *_secret_complaints(thing)]
    return [f"{name}: {complaint}" for complaint in found]


def patch_complaints(patch: Values) -> list[str]:
    """
    Check that a patch of the DaemonSet aws-node sets exactly the expected variables.
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
        one["name"]: {
            variable["name"]: variable.get("value", "") for variable in one.get("env", [])
        }
        for one in [*pod.get("initContainers", []), *pod["containers"]]
    }
    names = given.keys() | CNI.keys()
    wrong = {one for one in names if one not in CNI or CNI[one].keys() != given.get(one, {}).keys()}
    return [
        *(f"{name} has {sorted(given.get(name, ()))}" for name in sorted(wrong)),
        *(
            f"{variable}={value}"
            for name in given.keys() - wrong
            for variable, value in given[name].items()
            if value not in CNI[name][variable]
        ),
    ]


def _pod_complaints(thing: Values) -> list[str]:
    """
    Run the checks for values on a pod, treated as a component with its containers.
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
    found += [f"{name} is not mounted" for name in sorted(volumes - mounted)]
    if others:
        found += [*checks.volume_complaints(values), *checks.one_shot_complaints(values)]
    return found


def _secret_complaints(thing: Values) -> Iterator[str]:
    """
    Check that an ExternalSecret creates the required keys, each from one source.
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
        yield "the names of the ExternalSecret and its Secret differ"
    if ("sourceRef" in str(spec.get("dataFrom"))) == ("secretStoreRef" in spec):
        yield "needs either secretStoreRef or a generator"
    if bool(template) != ("dataFrom" in spec) or ("data" in spec) == ("dataFrom" in spec):
        yield "needs either data, or dataFrom with a template"
    for one in spec.get("data", []):
        if (
            one["remoteRef"].get("decodingStrategy") == "Auto"
            and one["secretKey"] != "airflow.keytab"
        ):
            yield f"{one['secretKey']} may look like base64, but is not encoded"
    yield from _json_complaints(
        template.get(".dockerconfigjson", '{"auths": {"x": {"auth": "x"}}}')
    )


def _json_complaints(template: str) -> Iterator[str]:
    """
    Check that a template renders to a `.dockerconfigjson` that a kubelet can read.
    """
    try:
        document = json.loads(re.sub(r"\{\{ .*? \}\}", "x", template))
    except ValueError as error:
        yield f".dockerconfigjson is not JSON: {error}"
    else:
        if document != {"auths": {"x": {"auth": "x"}}}:
            yield f".dockerconfigjson is not a docker configuration: {document}"
