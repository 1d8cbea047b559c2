"""
Facts about each sidecar that the checks of snippets need.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import botocore.session

import git_sync_wrapper.options
import git_sync_wrapper.settings
import kerberos_sidecar.settings
import s3_sync.settings
import sync_perm.settings
from sidecar_runtime.settings import CommonSettings, names_of, specs_of

Values = dict[str, Any]

DAGS_FOLDER = "/opt/airflow/dags"
# Where a pod of the KubernetesPodOperator keeps files that are not DAGs.
PROJECT = "/project"
CONNECTIONS = frozenset({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN"})
# The chart's own volume with airflow.cfg, which names the auth manager.
CONFIG = ("{{ .Values.airflowHome }}/airflow.cfg", "config")
# `kerberos.ccacheMountPath` and `ccacheFileName` of chart 1.22.0. Airflow sets KRB5CCNAME to this
# path if `[core] security` is kerberos (`airflow.__main__.main`).
CHART_CCACHE = "/var/kerberos-ccache/cache"
# The volumes of the chart's components and of `kerberos.enabled`.
CHART_VOLUMES = {"config", "dags", "logs", "kerberos-keytab", "kerberos-ccache"}


@dataclass(frozen=True, kw_only=True)
class Charted:
    """
    One sidecar in the chart; its containers have the name of its folder.

    Args:
        snippets: The kinds of its snippets.
        foreign: Variables of its libraries that a snippet may set.
        wanted: Variables that a snippet must set, besides the required settings.
        volume_complaints: Checks the volumes of a component and of a container in it.
        read_more: Reads the variables of its library, given the settings.
        image: Variables of its image, with values that are valid on this machine.
    """

    settings: type[CommonSettings]
    prefix: str
    snippets: tuple[str, ...] = ("extra", "init", "native")
    foreign: Callable[[], frozenset[str]] = frozenset
    wanted: frozenset[str]
    volume_complaints: Callable[[Values, Values], list[str]]
    read_more: Callable[[Any, Mapping[str, str]], object] = lambda settings, environ: None
    image: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def variables(self) -> frozenset[str]:
        """
        All variables that the sidecar, its libraries or its status page read.
        """
        return names_of(self.settings, self.prefix) | self.foreign() | POD

    @functools.cached_property
    def needed(self) -> frozenset[str]:
        """
        All variables that a snippet must set.
        """
        specs = specs_of(self.settings, self.prefix).values()
        return self.wanted | {spec.variable for spec in specs if spec.required}

    def load(self, environ: Mapping[str, str]) -> None:
        """
        Read the variables as the sidecar does at start.

        Raises:
            SettingsError: The sidecar would refuse them.
        """
        # The image's Python may know newer grammars than the Python that runs the tests.
        newest = sys.version_info[:2]
        too_new = {
            name: ".".join(map(str, newest))
            for name, version in grammars(environ).items()
            if newest < version <= IMAGE_PYTHON
        }
        given = {**self.image, **environ, **too_new}
        settings, _ = import_module(self.settings.__module__).load_settings(given)
        self.read_more(settings, given)

    @functools.cached_property
    def port(self) -> int:
        """
        The default port of its HTTP_BIND.
        """
        default = specs_of(self.settings, self.prefix)["http_bind"].default or ""
        return int(default.rpartition(":")[2])

    @property
    def one_shot(self) -> str:
        """
        The variable that makes it one-shot.
        """
        return f"{self.prefix}ONE_SHOT"


def grammars(environ: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """
    Return the Python 3 grammars that the GATE_GRAMMAR variables require, by variable.
    """
    matches = {
        name: re.fullmatch(r"3\.(\d+)", value)
        for name, value in environ.items()
        if name.endswith("_GATE_GRAMMAR")
    }
    return {name: (3, int(match[1])) for name, match in matches.items() if match}


def _image_python() -> tuple[int, int]:
    dockerfile = Path(__file__).parents[3] / "sidecars" / "s3-sync" / "Dockerfile"
    match = re.search(r"^ARG BASE_IMAGE=\S+/python:3\.(\d+)-", dockerfile.read_text(), re.MULTILINE)
    assert match, dockerfile
    return (3, int(match[1]))


POD = {"POD_NAME", "POD_NAMESPACE", "NODE_NAME"}
"""The variables that every status page shows."""
IMAGE_PYTHON = _image_python()


def botocore_names() -> frozenset[str]:
    """
    Return the variables that botocore reads; its own table lacks some of them.
    """
    more = {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_REGION",
    }
    table = botocore.session.get_session().session_var_map
    for _, names, *_ in table.values():
        more.update([names] if isinstance(names, str) else names or [])
    return frozenset(more)


def mounts(holder: Values, key: str, *, read_only: bool) -> set[tuple[str, str]]:
    """
    Return the path and volume of each read-only mount, or of each writable mount.
    """
    return {
        (mount["mountPath"], mount["name"])
        for mount in holder.get(key, [])
        if (mount.get("readOnly") is True) == read_only
    }


def environment(holder: Values) -> dict[str, str]:
    """
    Return the variables of a container or component, with `secret` for values from elsewhere.
    """
    return {variable["name"]: variable.get("value", "secret") for variable in holder.get("env", [])}


def dags_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that Airflow or a task reads what the sidecar writes, and that no volume is named `dags`.
    """
    volumes = {volume["name"] for volume in component.get("extraVolumes", [])}
    reads = mounts(component, "extraVolumeMounts", read_only=True)
    writes = mounts(container, "volumeMounts", read_only=False)
    target = environment(container).get("DEST_PATH")
    found = []
    if "dags" in volumes:
        found.append("a volume has the name of the chart volume dags")
    if target not in (DAGS_FOLDER, PROJECT) or {path for path, _ in writes} != {target}:
        found.append("DEST_PATH is not the mounted DAG folder")
    if not writes <= reads or not {name for _, name in reads} <= volumes:
        found.append("Airflow does not mount the DAG folder read-only")
    return found


def airflow_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that the sidecar has Airflow's connection and configuration, and a writable `/tmp`.
    """
    volumes = {volume["name"] for volume in component.get("extraVolumes", [])}
    sources = [v.get("valueFrom") for v in container.get("env", []) if v["name"] in CONNECTIONS]
    secret = {"name": '{{ include "airflow_metadata_secret" . }}', "key": "connection"}
    found = []
    if sources != [{"secretKeyRef": secret}]:
        found.append("the connection does not come from the chart's Secret")
    if CONFIG not in mounts(container, "volumeMounts", read_only=True):
        found.append("airflow.cfg is not mounted read-only")
    writes = mounts(container, "volumeMounts", read_only=False)
    if {path for path, _ in writes} != {"/tmp"} or not {name for _, name in writes} <= volumes:
        found.append("/tmp is not the only writable mount")
    return found


def ticket_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that only the sidecar mounts the keytab, and that Airflow reads the sidecar's ccache.
    """
    volumes = {volume["name"]: volume for volume in component.get("extraVolumes", [])}
    airflow, ours = environment(component), environment(container)
    ccache, krb5_conf = ours.get("KERBEROS_CCACHE", ""), ours.get("KRB5_CONFIG")
    reads = mounts(component, "extraVolumeMounts", read_only=True)
    may_write = mounts(component, "extraVolumeMounts", read_only=False)
    private = mounts(container, "volumeMounts", read_only=True)
    (written,) = mounts(container, "volumeMounts", read_only=False) or {("", "")}
    medium = volumes.get(written[1], {}).get("emptyDir", {}).get("medium")
    keytabs = {name for name, volume in volumes.items() if "secret" in volume}
    sees = bool({("/etc/keytab", name) for name in keytabs} & private)
    all_mounts = [*component.get("extraVolumeMounts", []), *container.get("volumeMounts", [])]
    rules = {
        "Airflow mounts the keytab": not {name for _, name in reads | may_write} & keytabs,
        "the sidecar does not mount the keytab": sees,
        "a subPath never shows a new keytab": not any("subPath" in mount for mount in all_mounts),
        "the ccache is not on the writable volume": ccache.startswith(f"{written[0]}/"),
        "Airflow does not mount the ccache read-only": written in reads and not may_write,
        "the ccache volume is not in memory": medium == "Memory",
        "KRB5CCNAME is not the ccache": airflow.get("KRB5CCNAME") == f"FILE:{ccache}",
        "KERBEROS_CCACHE is not the ccache in airflow.cfg": ccache == CHART_CCACHE,
        "KRB5_CONFIG differs": airflow.get("KRB5_CONFIG") == krb5_conf is not None,
        "the two krb5.conf differ": len({path for path, _ in reads & private}) == 1,
        "a volume has the name of a chart volume": not volumes.keys() & CHART_VOLUMES,
    }
    return [complaint for complaint, holds in rules.items() if not holds]


def commits_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that Airflow reads the root that the sidecar writes, and does not see the password.
    """
    volumes = {volume["name"]: volume for volume in component.get("extraVolumes", [])}
    ours = environment(container)
    reads = mounts(component, "extraVolumeMounts", read_only=True)
    writes = mounts(container, "volumeMounts", read_only=False)
    secrets = {name for name, volume in volumes.items() if "secret" in volume}
    seen = {mount["name"] for mount in component.get("extraVolumeMounts", [])}
    private = [path for path, name in mounts(container, "volumeMounts", read_only=True)]
    files = [ours.get("GITSYNC_PASSWORD_FILE"), ours.get("GIT_SYNC_WRAPPER_USERNAME_FILE")]
    rules = {
        "a volume has the name of the chart volume dags": "dags" not in volumes,
        "GITSYNC_ROOT is not the folder that the sidecar writes and Airflow reads": {
            path for path, _ in reads & writes
        }
        == {ours.get("GITSYNC_ROOT")},
        "/tmp is not writable": "/tmp" in {path for path, _ in writes},
        "a mount with a subPath never shows the next commit": not any(
            "subPath" in mount for mount in component.get("extraVolumeMounts", [])
        ),
        "Airflow mounts the password": not secrets & seen,
        "the password file is not in a mounted Secret": all(
            file is not None and file.rpartition("/")[0] in private for file in files
        ),
    }
    return [complaint for complaint, holds in rules.items() if not holds]


def git_sync_variables() -> frozenset[str]:
    """
    Return the variables of git-sync that the wrapper reads.
    """
    flags = git_sync_wrapper.options.FLAGS
    return frozenset(name for flag in flags for name in git_sync_wrapper.options.variables(flag))


def read_options(
    settings: git_sync_wrapper.settings.Settings, environ: Mapping[str, str]
) -> object:
    """
    Read the variables of git-sync, as git-sync-wrapper does at start.
    """
    return git_sync_wrapper.options.read_options([], environ)


SIDECARS: Mapping[str, Charted] = {
    "s3-sync": Charted(
        settings=s3_sync.settings.Settings,
        prefix=s3_sync.settings.PREFIX,
        snippets=(
            "extra",
            "init",
            "native",
            "release",
            "signed",
            "snapshot",
            "versions",
        ),
        foreign=botocore_names,
        wanted=frozenset({"KEY_PATH", "INTERVAL"}),
        volume_complaints=dags_complaints,
    ),
    "git-sync-wrapper": Charted(
        settings=git_sync_wrapper.settings.Settings,
        prefix=git_sync_wrapper.settings.PREFIX,
        snippets=("chart", "codecommit", "extra", "init", "native", "versions"),
        foreign=git_sync_variables,
        wanted=frozenset({"GITSYNC_REPO", "GITSYNC_REF", "GITSYNC_ROOT", "GITSYNC_LINK"}),
        volume_complaints=commits_complaints,
        read_more=read_options,
        image={"GIT_SYNC_WRAPPER_GIT_SYNC": sys.executable},
    ),
    "kerberos": Charted(
        settings=kerberos_sidecar.settings.Settings,
        prefix=kerberos_sidecar.settings.PREFIX,
        wanted=frozenset({"KRB5_CONFIG", "INTERVAL", "KERBEROS_CCACHE"}),
        volume_complaints=ticket_complaints,
    ),
    "sync-perm": Charted(
        settings=sync_perm.settings.Settings,
        prefix=sync_perm.settings.PREFIX,
        snippets=("extra",),
        foreign=lambda: CONNECTIONS | {"AIRFLOW__CORE__AUTH_MANAGER"},
        wanted=frozenset({"INTERVAL"}),
        volume_complaints=airflow_complaints,
    ),
}
