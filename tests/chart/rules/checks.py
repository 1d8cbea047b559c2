"""
Checks for snippets; each returns its complaints, none if the snippet is correct.

`tests.chart.rules.sidecars` contains the rules of each sidecar.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
import yaml
from jsonschema import Draft7Validator

from sidecar_runtime.errors import SettingsError
from tests.chart import files
from tests.chart.rules.kubernetes import strict_complaints
from tests.chart.rules.pods import restricted_rules
from tests.chart.rules.sidecars import CHART_VOLUMES, SIDECARS, Values, environment

# Keys of the chart's schema that its values file contains only as comments.
WITHOUT_DEFAULT = {"$.dags.gitSync.credentialsSecret", "$.dags.gitSync.emptyDirConfig"}

CHART = Path(os.environ.get("AIRFLOW_CHART") or "/nonexistent").absolute()
HOW_TO_GET_THE_CHART = (
    "AIRFLOW_CHART names no folder with the official chart: "
    "helm pull apache-airflow/airflow --version 1.22.0 --untar"
)
needs_chart = pytest.mark.skipif(
    not (CHART / "values.schema.json").is_file(), reason=HOW_TO_GET_THE_CHART
)

# Airflow options that the chart does not set, and annotations that its values lack. The checks
# report any other name as unknown.
AIRFLOW_OPTIONS = {
    "api": {"base_url"},  # Airflow 3
    "dag_processor": {"refresh_interval"},  # Airflow 3
    "logging": {"remote_base_log_folder"},
    "scheduler": {"dag_dir_list_interval"},  # Airflow 2
    "webserver": {"base_url"},  # Airflow 2
}
ANNOTATIONS = {
    "eks.amazonaws.com/role-arn",
    *(
        f"alb.ingress.kubernetes.io/{name}"
        for name in (
            "healthcheck-path",
            "listen-ports",
            "scheme",
            "target-type",
        )
    ),
}

# Labels that the chart, Kubernetes or the snippets set.
LABELS = {
    "app.kubernetes.io/name",
    "component",
    "k8s-app",
    "kubernetes.io/metadata.name",
    "release",
    "tier",
}


@functools.cache
def chart_values() -> Values:
    """
    Return all keys that a user may set: the chart's defaults, Airflow options and `sidecars`.
    """
    defaults: Values = yaml.safe_load((CHART / "values.yaml").read_text())
    for section, options in AIRFLOW_OPTIONS.items():
        defaults["config"].setdefault(section, {}).update(dict.fromkeys(options, ""))
    return {**defaults, "sidecars": {}}


@functools.cache
def chart_schema() -> Values:
    schema: Values = json.loads((CHART / "values.schema.json").read_text())
    return schema


def chart_complaints(values: Values) -> list[str]:
    """
    Report unknown keys, and values that the chart's schema refuses.
    """
    return [*unknown_keys(values), *schema_complaints(values)]


def schema_complaints(values: Values) -> list[str]:
    """
    Validate the merged values against the chart's schema, as `helm install` does.
    """
    errors = Draft7Validator(chart_schema()).iter_errors(files.merged(chart_values(), values))
    return [f"{error.json_path}: {error.message}" for error in errors]


def unknown_keys(values: Values, defaults: Values | None = None, path: str = "$") -> list[str]:
    """
    Report keys that the chart does not read; its schema accepts most of them.

    A map that is empty by default accepts any key.
    """
    found = []
    defaults = chart_values() if defaults is None else defaults
    for key, value in values.items():
        if f"{path}.{key}" in WITHOUT_DEFAULT:
            continue
        if key not in defaults:
            found.append(f"{path}.{key}: not a key of the chart")
        elif isinstance(value, dict) and isinstance(defaults[key], dict) and defaults[key]:
            found += unknown_keys(value, defaults[key], f"{path}.{key}")
    return found


def components(values: Values, path: str = "$") -> Iterator[tuple[str, Values]]:
    """
    Yield every component of the values that adds containers, with its path.
    """
    if "extraContainers" in values or "extraInitContainers" in values:
        yield path, values
    for key, value in values.items():
        if isinstance(value, dict):
            yield from components(value, f"{path}.{key}")


def containers(component: Values) -> list[Values]:
    """
    Return the containers that a component adds, init containers first.
    """
    return [*component.get("extraInitContainers", []), *component.get("extraContainers", [])]


def kubernetes_complaints(values: Values) -> list[str]:
    """
    Validate, strictly, the pod that the chart would create for each component.
    """
    found = []
    for path, component in components(values):
        airflow = {
            "name": "airflow",
            "image": "apache/airflow:3.2.2",
            "volumeMounts": component.get("extraVolumeMounts", []),
            "env": component.get("env", []),
            "resources": component.get("resources", {}),
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "airflow"},
            "spec": {
                "initContainers": component.get("extraInitContainers", []),
                "containers": [airflow, *component.get("extraContainers", [])],
                "volumes": component.get("extraVolumes", []),
            },
        }
        found += [f"{path}: {complaint}" for complaint in strict_complaints(pod)]
    return found


def resource_complaints(values: Values, path: str = "$") -> list[str]:
    """
    Report resources other than CPU, memory and storage: Kubernetes accepts any name.
    """
    found = []
    for key, value in values.items():
        parts = value if isinstance(value, list) else [value]
        for part in (one for one in parts if isinstance(one, dict)):
            if key in ("requests", "limits", "capacity"):
                unknown = part.keys() - {"cpu", "memory", "storage"}
                found += [f"{path}.{key}.{name} is not a resource" for name in sorted(unknown)]
            found += resource_complaints(part, f"{path}.{key}")
    return found


def label_complaints(thing: object, key: str = "") -> Iterator[str]:
    """
    Report unknown labels and annotations.
    """
    if isinstance(thing, list):
        for one in thing:
            yield from label_complaints(one)
    elif isinstance(thing, dict):
        known = {"annotations": ANNOTATIONS, "labels": LABELS, "matchLabels": LABELS}
        known["selector"] = LABELS | {"matchLabels", "matchExpressions"}
        yield from (
            f"{key}: {one} is unknown" for one in thing.keys() - known.get(key, thing.keys())
        )
        for name, value in thing.items():
            yield from label_complaints(value, name)


def environment_complaints(values: Values) -> list[str]:
    """
    Report unknown variables, missing variables, and values that the sidecar itself refuses.
    """
    found = []
    for path, component in components(values):
        for container in containers(component):
            sidecar = SIDECARS[container["name"]]
            names = {variable["name"] for variable in container.get("env", [])}
            unknown, missing = names - sidecar.variables, sidecar.needed - names
            found += [f"{path}: {name} is unknown to the sidecar" for name in sorted(unknown)]
            found += [f"{path}: {name} is missing" for name in sorted(missing)]
            try:
                sidecar.load(environment(container))
            except SettingsError as error:
                found += [
                    f"{path}: {one.setting}={one.value} {one.problem}" for one in error.problems
                ]
    return found


def answers(container: Values) -> bool:
    """
    Whether tasks can request older releases or commits from a container.
    """
    given = environment(container)
    kind = (given.get("S3_SYNC_SOURCE"), given.get("S3_SYNC_LAYOUT"))
    has_versions = kind == ("release", "snapshot") or container["name"] == "git-sync-wrapper"
    may_be_asked = given.get(f"{SIDECARS[container['name']].prefix}KEEP_REQUESTED") != "0"
    return container.get("restartPolicy") == "Always" and has_versions and may_be_asked


def probe_complaints(values: Values) -> list[str]:
    """
    Check that only daemons have probes, with the sidecar's port and the right paths.

    The startup probe of a native sidecar requires readiness, so that Airflow waits. In a task pod,
    a sidecar with DAG versions may omit it, because the task waits for its own version. Ordinary
    sidecars and liveness probes never require readiness; no container has a readiness probe.
    """
    found = []
    for path, component in components(values):
        for container in containers(component):
            port = SIDECARS[container["name"]].port
            is_native = container.get("restartPolicy") == "Always"
            is_daemon = is_native or container in component.get("extraContainers", [])
            wanted = {
                "startupProbe": "/readyz" if is_native else "/healthz",
                "livenessProbe": "/healthz",
            }
            named = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            probes = {key: container[key] for key in container if key.endswith("Probe")}
            is_of_task = path in ("$.workers.kubernetes", "$.task pod")
            if is_of_task and answers(container) and "startupProbe" not in probes:
                del wanted["startupProbe"]
            if probes.keys() != (wanted.keys() if is_daemon else set()):
                found.append(f"{path}: probes are {sorted(probes)}")
            for kind, probe in probes.items():
                get = probe.get("httpGet", {})
                if get.get("path") != wanted.get(kind):
                    found.append(f"{path}: {kind} requests {get.get('path')}")
                if named.get(get.get("port"), get.get("port")) != port:
                    found.append(f"{path}: {kind} uses port {get.get('port')}")
    return found


def one_shot_complaints(values: Values) -> list[str]:
    """
    Check that plain init containers are one-shot, and no other containers.
    """
    found = []
    for path, component in components(values):
        for container in containers(component):
            environment = {v["name"]: v.get("value") for v in container.get("env", [])}
            is_init = container in component.get("extraInitContainers", [])
            ends = environment.get(SIDECARS[container["name"]].one_shot) == "true"
            if ends != (is_init and container.get("restartPolicy") != "Always"):
                found.append(f"{path}: an init container without restartPolicy must be one-shot")
    return found


def security_complaints(values: Values) -> list[str]:
    """
    Check containers for the level `restricted`, a read-only root, resources and an image tag.
    """
    found = []
    for path, component in components(values):
        for container in containers(component):
            context = container.get("securityContext", {})
            rules = restricted_rules(container, {})
            rules["readOnlyRootFilesystem"] = context.get("readOnlyRootFilesystem") is True
            resources = container.get("resources", {})
            rules["requests"] = {"cpu", "memory"} <= resources.get("requests", {}).keys()
            rules["limits"] = "memory" in resources.get("limits", {})
            rules["image tag"] = ":" in container.get("image", "").rpartition("/")[2]
            found += [f"{path}: {rule}" for rule, holds in rules.items() if not holds]
    return found


def volume_complaints(values: Values) -> list[str]:
    """
    Check that emptyDirs have a size limit and mounts a volume, and run the sidecar's own check.
    """
    found = []
    for path, component in components(values):
        found += [
            f"{path}: volume {volume['name']} has no sizeLimit"
            for volume in component.get("extraVolumes", [])
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit")
        ]
        brought = {volume["name"] for volume in component.get("extraVolumes", [])} | CHART_VOLUMES
        mounts = list(component.get("extraVolumeMounts", []))
        for container in containers(component):
            mounts += container.get("volumeMounts", [])
        missing = {mount["name"] for mount in mounts} - brought
        found += [f"{path}: no volume {name}" for name in sorted(missing)]
        for container in containers(component):
            sees = SIDECARS[container["name"]].volume_complaints
            found += [f"{path}: {complaint}" for complaint in sees(component, container)]
    return found


def layout_complaints(values: Values) -> list[str]:
    """
    Check that `dags_folder` is where the layout of each pod publishes its files.
    """
    folders = {
        f"{one['DEST_PATH']}/current" if one.get("S3_SYNC_LAYOUT") == "snapshot" else None
        for _, component in components(values)
        for one in map(environment, containers(component))
        if "DEST_PATH" in one
    }
    looks = values.get("config", {}).get("core", {}).get("dags_folder")
    if folders <= {looks}:
        return []
    return [f"dags_folder is {looks}, not {sorted(map(str, folders))}"]


# The variables that define the source of a sidecar's DAGs.
SOURCES = {
    "s3-sync": ("AWS_BUCKET", "KEY_PATH", "S3_SYNC_SOURCE"),
    "git-sync-wrapper": ("GITSYNC_REPO", "GITSYNC_REF"),
}


def bringers(values: Values) -> Iterator[tuple[str, Values]]:
    """
    Yield the containers that download DAGs, each with the path of its component.
    """
    for path, component in components(values):
        yield from ((path, one) for one in containers(component) if one["name"] in SOURCES)


def source_complaints(values: Values) -> list[str]:
    """
    Check that all pods download their DAGs from the same source.
    """
    found = []
    for name, variables in SOURCES.items():
        given = [environment(one) for _, one in bringers(values) if one["name"] == name]
        for variable in variables:
            words = {one.get(variable) for one in given}
            if len(words) > 1:
                found.append(f"{variable} of {name} is {sorted(map(str, words))}")
    return found


BUNDLE = "airflow_sidecar_bundle.SidecarDagBundle"
BUNDLE_ARGUMENTS = {
    "path",
    "ask",
    "subdir",
    "wait_seconds",
    "view_url_template",
    "refresh_interval",
}


def bundle_complaints(values: Values) -> list[str]:
    """
    Check the bundle's arguments, and that its module is mounted from a ConfigMap on PYTHONPATH.
    """
    bundles = values.get("dagProcessor", {}).get("dagBundleConfigList")
    if bundles is None:
        return []
    found = []
    for one in bundles:
        if one.keys() != {"name", "classpath", "kwargs"} or one["classpath"] != BUNDLE:
            found.append(f"the bundle is {one}")
        elif not {"path", "refresh_interval"} <= one["kwargs"].keys() <= BUNDLE_ARGUMENTS:
            found.append(f"the arguments of the bundle are {one['kwargs']}")
    paths = [one.get("value") for one in values.get("env", ()) if one.get("name") == "PYTHONPATH"]
    mounts = values.get("volumeMounts", ())
    mounted = {one.get("mountPath"): one.get("name") for one in mounts if one.get("readOnly")}
    maps = {
        one.get("name")
        for one in values.get("volumes", ())
        if one.get("configMap", {}).get("name") == "airflow-sidecar-bundle"
    }
    if len(paths) != 1 or mounted.get(paths[0]) not in maps or len(mounts) != len(mounted):
        found.append("the module of the bundle is not mounted read-only on PYTHONPATH")
    return found


def link_of(container: Values) -> str:
    """
    Return the link through which a container publishes its DAGs with DAG versions.
    """
    given = environment(container)
    if container["name"] == "s3-sync":
        return f"{given.get('DEST_PATH')}/current"
    return os.path.join(given.get("GITSYNC_ROOT", ""), given.get("GITSYNC_LINK", ""))


def version_complaints(values: Values) -> list[str]:
    """
    Check that the bundle reads the link and the `dags_folder`, that each sidecar serves its
    requests, and that its URL template contains only the version.
    """
    bundles = values.get("dagProcessor", {}).get("dagBundleConfigList") or ()
    looks = values.get("config", {}).get("core", {}).get("dags_folder")
    links = sorted({link_of(one) for _, one in bringers(values)})
    found = []
    for given in (one.get("kwargs", {}) for one in bundles):
        path, template = given.get("path"), given.get("view_url_template", "https://{version}")
        fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        if links != [path]:
            found.append(f"the path of the bundle is {path}, not {links}")
        if f"{path}/{given.get('subdir', '')}".rstrip("/") != looks:
            found.append(f"path and subdir of the bundle are not the dags_folder {looks}: {given}")
        if fields != {"version"} or not template.startswith(("https://", "http://")):
            found.append(f"view_url_template is not a URL with the version: {template}")
        found += [
            f"{component}: {one['name']} does not accept requests of the bundle"
            for component, one in bringers(values)
            if not answers(one)
        ]
    return found


def complaints(values: Values) -> list[str]:
    """
    Run the checks that need no chart; those that assume a valid form run only if it is valid.
    """
    values, found = files.referred(values)
    found += [
        *kubernetes_complaints(values),
        *resource_complaints(values),
        *label_complaints(values),
    ]
    return found or [
        *environment_complaints(values),
        *probe_complaints(values),
        *one_shot_complaints(values),
        *security_complaints(values),
        *volume_complaints(values),
        *layout_complaints(values),
        *source_complaints(values),
        *bundle_complaints(values),
        *version_complaints(values),
    ]
