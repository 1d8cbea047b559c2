"""
What the checks of snippets must know about each sidecar.
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

import git_sync_wrapper.flags.options
import git_sync_wrapper.settings
import kerberos_sidecar.settings
import s3_sync.settings
import sync_perm.settings
from sidecar_runtime.settings import CommonSettings, names_of, specs_of

Values = dict[str, Any]

DAGS_FOLDER = "/opt/airflow/dags"
# Where a pod of the KubernetesPodOperator has what is no DAG.
PROJECT = "/project"
CONNECTIONS = frozenset({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN"})
# The chart's own volume with airflow.cfg, which names the auth manager.
CONFIG = ("{{ .Values.airflowHome }}/airflow.cfg", "config")
# What `kerberos.enabled` and the components bring (chart 1.22.0).
# `[kerberos] ccache` of its airflow.cfg, which Airflow makes KRB5CCNAME where `[core] security` is
# kerberos (`airflow.__main__.main`): `kerberos.ccacheMountPath` and `ccacheFileName`.
CHART_CCACHE = "/var/kerberos-ccache/cache"
CHART_VOLUMES = {"config", "dags", "logs", "kerberos-keytab", "kerberos-ccache"}


@dataclass(frozen=True, kw_only=True)
class Charted:
    """
    One sidecar in the chart; its containers are named as its folder is.

    Args:
        snippets: The kinds of snippet that there are of it.
        foreign: Variables of its libraries that a snippet may set.
        wanted: Variables that a snippet must set, besides the required settings.
        volume_complaints: What is wrong with the volumes of a component and of a container in it.
        read_more: Reads what its library does, of the settings and the variables.
        image: What its image sets, as it can be here.
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
        Everything that anyone reads.
        """
        return names_of(self.settings, self.prefix) | self.foreign() | POD

    @functools.cached_property
    def needed(self) -> frozenset[str]:
        """
        All that a snippet must set.
        """
        specs = specs_of(self.settings, self.prefix).values()
        return self.wanted | {spec.variable for spec in specs if spec.required}

    def load(self, environ: Mapping[str, str]) -> None:
        """
        Read the variables as the sidecar does at start.

        Raises:
            SettingsError: It would refuse them.
        """
        # The image's Python knows newer grammars than that of the tests may.
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
        The default of its HTTP_BIND.
        """
        default = specs_of(self.settings, self.prefix)["http_bind"].default or ""
        return int(default.rpartition(":")[2])

    @property
    def one_shot(self) -> str:
        """
        The variable that makes it end.
        """
        return f"{self.prefix}ONE_SHOT"


def grammars(environ: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """
    Return the grammars that a gate is to know, as far as they are versions of Python 3.
    """
    matches = {
        name: re.fullmatch(r"3\.(\d+)", value)
        for name, value in environ.items()
        if name.endswith("_GATE_GRAMMAR")
    }
    return {name: (3, int(match[1])) for name, match in matches.items() if match}


def _image_python() -> tuple[int, int]:
    """
    Return the version of Python that the images with a gate have.
    """
    dockerfile = Path(__file__).parents[2] / "sidecars" / "s3-sync" / "Dockerfile"
    match = re.search(r"^ARG BASE_IMAGE=python:3\.(\d+)-", dockerfile.read_text(), re.MULTILINE)
    assert match, dockerfile
    return (3, int(match[1]))


POD = {"POD_NAME", "POD_NAMESPACE", "NODE_NAME"}
"""What each status page says of its pod."""
IMAGE_PYTHON = _image_python()


def botocore_names() -> frozenset[str]:
    """
    What botocore takes from the environment; some of it is not in its own table.
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
    Path and volume of what is mounted read-only, or of what is mounted to write.
    """
    return {
        (mount["mountPath"], mount["name"])
        for mount in holder.get(key, [])
        if (mount.get("readOnly") is True) == read_only
    }


def environment(holder: Values) -> dict[str, str]:
    """
    The variables of a container or a component; from a Secret comes a word.
    """
    return {variable["name"]: variable.get("value", "secret") for variable in holder.get("env", [])}


def dags_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that the sidecar writes and Airflow, or a task, reads one folder, in a volume not called
    `dags`.
    """
    volumes = {volume["name"] for volume in component.get("extraVolumes", [])}
    reads = mounts(component, "extraVolumeMounts", read_only=True)
    writes = mounts(container, "volumeMounts", read_only=False)
    target = environment(container).get("DEST_PATH")
    found = []
    if "dags" in volumes:
        found.append("the chart has a volume dags of its own")
    if target not in (DAGS_FOLDER, PROJECT) or {path for path, _ in writes} != {target}:
        found.append("DEST_PATH is not the mounted DAG folder")
    if not writes <= reads or not {name for _, name in reads} <= volumes:
        found.append("Airflow does not read what the sidecar writes")
    return found


def airflow_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that the sidecar gets Airflow's connection and configuration, and a `/tmp` to write.
    """
    volumes = {volume["name"] for volume in component.get("extraVolumes", [])}
    sources = [v.get("valueFrom") for v in container.get("env", []) if v["name"] in CONNECTIONS]
    secret = {"name": '{{ include "airflow_metadata_secret" . }}', "key": "connection"}
    found = []
    if sources != [{"secretKeyRef": secret}]:
        found.append("the connection is not the chart's own Secret")
    if CONFIG not in mounts(container, "volumeMounts", read_only=True):
        found.append("airflow.cfg is not mounted read-only")
    writes = mounts(container, "volumeMounts", read_only=False)
    if {path for path, _ in writes} != {"/tmp"} or not {name for _, name in writes} <= volumes:
        found.append("/tmp is not the one place to write")
    return found


def ticket_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that the keytab is the sidecar's alone, and the ccache written by it, read by Airflow.
    """
    volumes = {volume["name"]: volume for volume in component.get("extraVolumes", [])}
    airflow, ours = environment(component), environment(container)
    reads = mounts(component, "extraVolumeMounts", read_only=True)
    private = mounts(container, "volumeMounts", read_only=True)
    (written,) = mounts(container, "volumeMounts", read_only=False) or {("", "")}
    keytabs = {name for name, volume in volumes.items() if "secret" in volume}
    all_mounts = [*component.get("extraVolumeMounts", []), *container.get("volumeMounts", [])]
    rules = {
        "Airflow sees the keytab": not {
            mount["name"] for mount in component.get("extraVolumeMounts", [])
        }
        & keytabs,
        "the sidecar sees no keytab": bool({("/etc/keytab", name) for name in keytabs} & private),
        "a subPath never sees a new keytab": not any("subPath" in mount for mount in all_mounts),
        "the ccache is not on the written volume": ours.get("KERBEROS_CCACHE", "").startswith(
            f"{written[0]}/"
        ),
        "Airflow does not read what the sidecar writes": written in reads
        and mounts(component, "extraVolumeMounts", read_only=False) == set(),
        "tickets lie on a disk": volumes.get(written[1], {}).get("emptyDir", {}).get("medium")
        == "Memory",
        "KRB5CCNAME is not the ccache": airflow.get("KRB5CCNAME")
        == f"FILE:{ours.get('KERBEROS_CCACHE')}",
        "airflow.cfg names another ccache": ours.get("KERBEROS_CCACHE") == CHART_CCACHE,
        "KRB5_CONFIG differs": airflow.get("KRB5_CONFIG") == ours.get("KRB5_CONFIG") is not None,
        "krb5.conf is not mounted for both": len({path for path, _ in reads & private}) == 1,
        "a volume has a name of the chart's": not volumes.keys() & CHART_VOLUMES,
    }
    return [complaint for complaint, holds in rules.items() if not holds]


def commits_complaints(component: Values, container: Values) -> list[str]:
    """
    Check that the sidecar writes and Airflow reads one root, that both sides of the link lie in it.
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
        "the chart has a volume dags of its own": "dags" not in volumes,
        "GITSYNC_ROOT is not the mount that one writes and the other reads": {
            path for path, _ in reads & writes
        }
        == {ours.get("GITSYNC_ROOT")},
        "/tmp cannot be written": "/tmp" in {path for path, _ in writes},
        "a subPath shows nothing after the next commit": not any(
            "subPath" in mount for mount in component.get("extraVolumeMounts", [])
        ),
        "Airflow sees the password": not secrets & seen,
        "the password is not in the Secret that is mounted": all(
            file is not None and file.rpartition("/")[0] in private for file in files
        ),
    }
    return [complaint for complaint, holds in rules.items() if not holds]


def read_options(
    settings: git_sync_wrapper.settings.Settings, environ: Mapping[str, str]
) -> object:
    """
    Read the variables of git-sync, as git-sync-wrapper does at start.
    """
    return git_sync_wrapper.flags.options.read_options(
        [],
        environ,
        has_username=settings.username_file is not None,
        has_password=settings.credentials.kind == "secrets-manager",
    )


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
        foreign=lambda: git_sync_wrapper.flags.table.VARIABLES,
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
