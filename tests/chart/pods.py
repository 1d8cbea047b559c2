"""
What every pod must satisfy once it is whole: as the chart renders it, or as an object has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.chart.sidecars import SIDECARS, Values

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
    Return our containers of a pod, each with how it runs: extra, init or native.
    """
    found = {one["name"]: "extra" for one in pod["containers"] if one["name"] in SIDECARS}
    for one in pod.get("initContainers") or []:
        if one["name"] in SIDECARS:
            found[one["name"]] = "native" if one.get("restartPolicy") == "Always" else "init"
    return found


def restricted_rules(container: Values, outer: Values) -> dict[str, bool]:
    """
    Say which rules of the PodSecurity level `restricted` a container keeps.

    Args:
        container: The container.
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
    Hold the containers (or only some, by name) against the PodSecurity level `restricted`.
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
    Check that no name is there twice, every mount has its volume, and no two the same path.
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
        yield f"containers are {everybody}"


def keytab_complaints(pod: Values) -> Iterator[str]:
    """
    Check that kerberos alone sees the keytab, whole, and cannot write to it.
    """
    secrets = {
        volume["name"]
        for volume in pod.get("volumes") or []
        if "keytab" in str(volume.get("secret"))
    }
    for container in containers(pod):
        mounts = [one for one in container.get("volumeMounts") or [] if one["name"] in secrets]
        if mounts and container["name"] != "kerberos":
            yield f"{container['name']} sees the keytab"
        if container["name"] == "kerberos" and [("/etc/keytab", True, False)] != [
            (one["mountPath"], one.get("readOnly"), "subPath" in one) for one in mounts
        ]:
            yield "kerberos does not see the keytab as it should"


def sharing_complaints(pod: Values) -> Iterator[str]:
    """
    Check that what one of our containers writes, Airflow's reads, read-only, on the same path.
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
                yield f"{airflow['name']} does not read {place}, or may write there"
