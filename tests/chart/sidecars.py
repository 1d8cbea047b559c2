"""
What the checks know about each sidecar.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from sidecar_runtime.errors import SettingsError
from tests import Facts, Texts
from tests.support.ledger.documented import names_of

Values = Facts

DAGS_FOLDER = "/opt/airflow/dags"
# The keys of the Secrets and ConfigMaps that users create.
WANTED_KEYS = {
    # the chart's dags.gitSync.credentialsSecret
    "git-credentials": {
        "GIT_SYNC_USERNAME",
        "GITSYNC_USERNAME",
        "GIT_SYNC_PASSWORD",
        "GITSYNC_PASSWORD",
    },
    "registry-auth": {".dockerconfigjson"},
    "airflow-kerberos-keytab": {"airflow.keytab"},
    "airflow-metadata": {"connection"},
    "airflow-fernet-key": {"fernet-key"},
    "airflow-api-secret-key": {"api-secret-key"},
    "airflow-jwt-secret": {"jwt-secret"},
    "airflow-webserver-secret-key": {"webserver-secret-key"},
}


@dataclass(frozen=True)
class Charted:
    """
    One sidecar; its containers and its image have the name of its folder.

    Args:
        foreign: Variables of its libraries that the values set.
        image: Variables of its image, with values that are valid on this machine.
    """

    package: str
    port: int
    foreign: tuple[str, ...] = ()
    image: Mapping[str, str] = field(default_factory=dict)

    @property
    def one_shot(self) -> str:
        """
        The variable that makes it one-shot.
        """
        return f"{self._settings.PREFIX}ONE_SHOT"

    def complaints(self, environ: Mapping[str, str]) -> list[str]:
        """
        Report variables that the sidecar does not know, or whose values it refuses.
        """
        module = self._settings
        known = {*names_of(module.Settings, module.PREFIX), *self.foreign, "NODE_NAME"}
        found = [f"{name} is unknown" for name in sorted(environ.keys() - known)]
        try:
            module.load_settings({**self.image, **environ})
        except SettingsError as error:
            found += [
                f"{one.setting}={one.value} {one.problem}" for one in error.problems
            ]
        return found

    @property
    def _settings(self) -> Any:
        return import_module(f"{self.package}.settings")


_AWS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_CA_BUNDLE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
_GIT = (
    "PASSWORD_FILE",
    "PERIOD",
    "REF",
    "REPO",
    "ROOT",
    "LINK",
    "USERNAME",
    "PASSWORD",
)
_GITSYNC = tuple(f"GITSYNC_{name}" for name in (*_GIT, "MAX_FAILURES"))
_PROGRAM = {"GIT_SYNC_WRAPPER_GIT_SYNC": sys.executable}
SIDECARS: Mapping[str, Charted] = {
    "s3-sync": Charted("s3_sync", 9811, _AWS),
    "sync-perm": Charted("sync_perm", 9812, ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",)),
    "kerberos": Charted("kerberos_sidecar", 9813),
    "git-sync-wrapper": Charted("git_sync_wrapper", 9814, _GITSYNC, _PROGRAM),
}


def environment(holder: Values) -> Texts:
    """
    Return the variables of a container, with `secret` for values from elsewhere.
    """
    return {one["name"]: one.get("value", "secret") for one in holder.get("env") or []}


def sidecar_of(container: Values) -> str | None:
    """
    Return the sidecar whose image a container runs; None for other images.
    """
    name = str(container["image"]).rpartition("/")[2].partition(":")[0]
    return name if name in SIDECARS else None
