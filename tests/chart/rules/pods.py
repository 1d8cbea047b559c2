"""
Checks for complete pods, from the rendered chart or from an object.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.chart.rules.sidecars import SIDECARS, Values

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


def containers(pod: Values) -> list[Values]:
    """
    Return all containers, init containers first.
    """
    return [*(pod.get("initContainers") or []), *pod["containers"]]


def kinds(pod: Values) -> dict[str, str]:
    """
    Return the sidecars of a pod, each with its kind: extra, init or native.
    """
    found = {one["name"]: "extra" for one in pod["containers"] if one["name"] in SIDECARS}
    for one in pod.get("initContainers") or []:
        if one["name"] in SIDECARS:
            found[one["name"]] = "native" if one.get("restartPolicy") == "Always" else "init"
    return found


def restricted_rules(container: Values, outer: Values) -> dict[str, bool]:
    """
    Return whether a container meets each rule of the PodSecurity level `restricted`.

    Args:
        outer: The security context of its pod.
    """
    inner = container.get("securityContext") or {}
    both = {**outer, **inner}
    return {
        "runAsNonRoot": both.get("runAsNonRoot") is True,
        "runAsUser": both.get("runAsUser") != 0,
        "seccompProfile": (both.get("seccompProfile") or {}).get("type") == "RuntimeDefault",
        "allowPrivilegeEscalation": inner.get("allowPrivilegeEscalation") is False,
        "capabilities": inner.get("capabilities") == {"drop": ["ALL"]},
        "privileged": not inner.get("privileged"),
    }


def restricted_complaints(pod: Values, only: set[str] | None = None) -> Iterator[str]:
    """
    Check a pod against the PodSecurity level `restricted`; `only` limits the containers.
    """
    outer = pod.get("securityContext") or {}
    for container in containers(pod):
        if only is not None and container["name"] not in only:
            continue
        rules = restricted_rules(container, outer)
        yield from (f"{container['name']}: {rule}" for rule, holds in rules.items() if not holds)
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield key
    for volume in pod.get("volumes") or []:
        if not volume.keys() <= {"name", *_VOLUMES}:
            yield f"volume {volume['name']}"


def volume_complaints(pod: Values) -> Iterator[str]:
    """
    Check for duplicate names, duplicate mount paths, and mounts without a volume.
    """
    names = [volume["name"] for volume in pod.get("volumes") or []]
    yield from (f"volume {name} twice" for name in {one for one in names if names.count(one) > 1})
    for container in containers(pod):
        mounts = container.get("volumeMounts") or []
        paths = [mount["mountPath"] for mount in mounts]
        variables = [variable["name"] for variable in container.get("env") or []]
        for path in {one for one in paths if paths.count(one) > 1}:
            yield f"{container['name']}: two mounts on {path}"
        for name in {mount["name"] for mount in mounts} - set(names):
            yield f"{container['name']}: no volume {name}"
        for name in {one for one in variables if variables.count(one) > 1}:
            yield f"{container['name']}: {name} twice"
    everybody = [container["name"] for container in containers(pod)]
    if len(everybody) > len(set(everybody)):
        yield f"duplicate container names: {everybody}"


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
        mounts = [one for one in container.get("volumeMounts") or [] if one["name"] in secrets]
        if mounts and container["name"] != "kerberos":
            yield f"{container['name']} mounts the keytab"
        if container["name"] == "kerberos" and [("/etc/keytab", True, False)] != [
            (one["mountPath"], one.get("readOnly"), "subPath" in one) for one in mounts
        ]:
            yield "kerberos does not mount the keytab read-only, as a whole, on /etc/keytab"


def sharing_complaints(pod: Values) -> Iterator[str]:
    """
    Check that Airflow mounts every volume that a sidecar writes, read-only, on the same path.
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
