"""
Checks for complete pods, from the rendered chart or from an object.
"""

from collections.abc import Iterator
from pathlib import Path

from tests import Texts
from tests.chart.sidecars import SIDECARS, Values, environment

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}

# The volumes that a sidecar writes.
OURS = {
    "s3-dags",
    "git-dags",
    "krb5-ccache",
    "git-sync-tmp",
    "sync-perm-tmp",
    "project",
}


def containers(pod: Values) -> list[Values]:
    """
    Return all containers, init containers first.
    """
    return [*(pod.get("initContainers") or []), *pod["containers"]]


def kinds(pod: Values) -> Texts:
    """
    Return the sidecars of a pod, each with its kind: extra, init or native.
    """
    found = {
        one["name"]: "extra" for one in pod["containers"] if one["name"] in SIDECARS
    }
    for one in pod.get("initContainers") or []:
        if one["name"] in SIDECARS:
            found[one["name"]] = (
                "native" if one.get("restartPolicy") == "Always" else "init"
            )
    return found


def restricted_complaints(pod: Values, only: set[str] | None = None) -> Iterator[str]:
    """
    Check a pod against the PodSecurity level `restricted`; `only` limits the
    containers.
    """
    wanted = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    outer = pod.get("securityContext") or {}
    for container in containers(pod):
        if only is not None and container["name"] not in only:
            continue
        given = {**outer, **(container.get("securityContext") or {})}
        yield from (
            f"{container['name']}: {key}"
            for key, value in wanted.items()
            if given.get(key) != value
        )
        if given.get("runAsUser") == 0 or given.get("privileged"):
            yield f"{container['name']} is root"
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key))
    for volume in pod.get("volumes") or []:
        if not volume.keys() <= {"name", *_VOLUMES}:
            yield f"volume {volume['name']}"


def _twice(kind: str, names: list[str]) -> Iterator[str]:
    yield from (
        f"{kind}: {name} twice"
        for name in {one for one in names if names.count(one) > 1}
    )


def volume_complaints(pod: Values) -> Iterator[str]:
    """
    Check for duplicate names, duplicate mount paths, and mounts without a volume.
    """
    volumes = pod.get("volumes") or []
    names = [volume["name"] for volume in volumes]
    yield from _twice("volumes", names)
    for volume in volumes:
        place = volume.get("emptyDir")
        if place is None or volume["name"] not in OURS:
            continue
        if "sizeLimit" not in place:
            yield f"volume {volume['name']} has no sizeLimit"
        if volume["name"] == "krb5-ccache" and place.get("medium") != "Memory":
            yield "the ticket is not in memory"
    for container in containers(pod):
        mounts = container.get("volumeMounts") or []
        name = container["name"]
        yield from _twice(name, [mount["mountPath"] for mount in mounts])
        yield from _twice(
            name, [variable["name"] for variable in container.get("env") or []]
        )
        yield from (
            f"{name}: no volume {one}"
            for one in ({mount["name"] for mount in mounts} - set(names))
        )
    yield from _twice(
        "containers", [container["name"] for container in containers(pod)]
    )


def keytab_complaints(pod: Values) -> Iterator[str]:
    """
    Check that only kerberos mounts the keytab, read-only and without a subPath.
    """
    secrets = {
        volume["name"]
        for volume in pod.get("volumes") or []
        if "keytab" in str(volume.get("secret"))
    }
    for container in containers(pod):
        mounts = [
            one for one in container.get("volumeMounts") or [] if one["name"] in secrets
        ]
        if mounts and container["name"] != "kerberos":
            yield f"{container['name']} mounts the keytab"
        if container["name"] == "kerberos" and [("/etc/keytab", True, False)] != [
            (one["mountPath"], one.get("readOnly"), "subPath" in one) for one in mounts
        ]:
            yield "kerberos does not mount the keytab read-only, as a whole, on /etc/keytab"


def sharing_complaints(pod: Values) -> Iterator[str]:
    """
    Check that Airflow mounts every volume that a sidecar writes, read-only, on the same
    path.
    """
    airflow = next(one for one in pod["containers"] if one["name"] not in SIDECARS)
    sees = {
        (mount["name"], mount["mountPath"]): mount.get("readOnly") is True
        for mount in airflow.get("volumeMounts") or []
    }
    for container in containers(pod):
        if container["name"] not in kinds(pod):
            continue
        for mount in container["volumeMounts"]:
            place = (mount["name"], mount["mountPath"])
            if mount.get("readOnly") or mount["mountPath"] == "/tmp":
                continue
            if sees.get(place) is not True:
                yield f"{airflow['name']} does not mount {place} read-only"
    if "kerberos" in kinds(pod):
        (kerberos,) = (one for one in containers(pod) if one["name"] == "kerberos")
        ticket = environment(airflow).get("KRB5CCNAME")
        if ticket != f"FILE:{environment(kerberos)['KERBEROS_CCACHE']}":
            yield f"{airflow['name']} looks for its ticket in {ticket}"


def sidecar_complaints(pod: Values) -> Iterator[str]:
    """
    Check each sidecar's variables, probes, port, image and resources.

    The startup probe of a native sidecar requires readiness, so that Airflow waits; a
    task that requests the version of its run needs none. Nothing else requires
    readiness, and an init container that ends is one-shot and has no probes.
    """
    for name, kind in kinds(pod).items():
        (container,) = (one for one in containers(pod) if one["name"] == name)
        sidecar = SIDECARS[name]
        given = environment(container)
        yield from (f"{name}: {one}" for one in sidecar.complaints(given))
        if (given.get(sidecar.one_shot) == "true") != (kind == "init"):
            yield f"{name}: only an init container that ends is one-shot"
        wanted = {
            "startupProbe": ("/readyz" if kind == "native" else "/healthz"),
            "livenessProbe": "/healthz",
        }
        is_of_a_task = kind == "native" and pod["containers"][0]["name"] == "base"
        if kind == "init" or (is_of_a_task and "startupProbe" not in container):
            wanted = {"livenessProbe": "/healthz"} if is_of_a_task else {}
        probes = {key: container[key] for key in container if key.endswith("Probe")}
        if wanted != {key: one["httpGet"]["path"] for key, one in probes.items()}:
            yield f"{name}: probes are {probes}"
        (port,) = container.get("ports") or [{}]
        named = {port.get("name"), *(one["httpGet"]["port"] for one in probes.values())}
        if kind != "init" and (
            1 != len(named) or port["containerPort"] != sidecar.port
        ):
            yield f"{name}: a probe uses another port than {sidecar.port}"
        mounted = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        paths = [Path(value) for value in given.values() if value.startswith("/")]
        yield from (
            f"{name}: nothing is mounted for {path}"
            for path in paths
            if not {path, *path.parents} & {*mounted}
        )
        resources = container["resources"]
        rules = {
            "read-only root": container["securityContext"]["readOnlyRootFilesystem"]
            is True,
            "resources": {"cpu", "memory"} <= resources["requests"].keys()
            and "memory" in resources["limits"],
            "image tag": ":" in container["image"].rpartition("/")[2],
            "rendered": "{{" not in str(container),
        }
        yield from (f"{name}: {rule}" for rule, holds in rules.items() if not holds)


def complaints(pod: Values) -> list[str]:
    """
    Run every check on the specification of a pod with a sidecar; that of the keytab is
    for all pods.
    """
    return [
        *volume_complaints(pod),
        *restricted_complaints(pod, only=set(SIDECARS)),
        *sharing_complaints(pod),
        *sidecar_complaints(pod),
    ]
