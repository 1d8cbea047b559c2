"""
Each sidecar's container, its volumes, and what Airflow's containers need of them.

A container has one of these forms:

- `native`: an init container that keeps running; Airflow starts once it is ready
- `beside`: the same, but Airflow does not wait for it
- `extra`: an ordinary container
- `init`: an init container that ends when its work is done
"""

from __future__ import annotations

from typing import Any

from sidecar_values.yaml_text import Octal

Values = dict[str, Any]

REGISTRY = "registry.example.com"
TAG = "0.3.0"
DAGS = "/opt/airflow/dags"
TMP = "/tmp"  # noqa: S108 (of a container)

# References to the block `sidecars`. The chart renders these lists as templates.
REFERRED: Values = {
    "bucket": "{{ .Values.sidecars.bucket }}",
    "path": "{{ .Values.sidecars.s3Sync.keyPath }}",
    "interval": "{{ .Values.sidecars.s3Sync.interval }}",
    "repo": "{{ .Values.sidecars.gitSync.repo }}",
    "ref": "{{ .Values.sidecars.gitSync.ref }}",
    "period": "{{ .Values.sidecars.gitSync.period }}",
    "principal": "{{ .Values.sidecars.kerberos.principal }}",
    "secretName": "{{ .Values.sidecars.kerberos.secretName }}",
    "role": "{{ .Values.sidecars.roleArn }}",
    "endpoint": "{{ .Values.sidecars.endpoint }}",
    "region": "{{ .Values.sidecars.region }}",
}
# The same as values, for objects outside of the chart.
WRITTEN: Values = {
    "bucket": "my-airflow-bucket",
    "path": "dags",
    "interval": "5s",
    "repo": "https://git.example.com/data-team/dags.git",
    "ref": "main",
    "period": "5s",
    "principal": "airflow@EXAMPLE.COM",
    "secretName": "airflow-kerberos-keytab",
}
_KEYS_OF_TAGS = {
    "s3-sync": "s3Sync",
    "git-sync-wrapper": "gitSync",
    "sync-perm": "syncPerm",
}


def _image(name: str, at: Values) -> str:
    if "role" not in at:
        return f"{REGISTRY}/{name}:{TAG}"
    key = _KEYS_OF_TAGS.get(name, name)
    return f"{{{{ .Values.sidecars.registry }}}}/{name}:{{{{ .Values.sidecars.{key}.tag }}}}"


def _mount(name: str, path: str, *, read_only: bool = False, **more: str) -> Values:
    mount: Values = {"name": name, "mountPath": path, **more}
    return {**mount, "readOnly": True} if read_only else mount


def variables(values: Values) -> list[Values]:
    """
    Return variables; those whose value is a map come from elsewhere.
    """
    return [
        {"name": name, "valueFrom" if isinstance(value, dict) else "value": value}
        for name, value in values.items()
    ]


def _probe(path: str, port: str, every: int, failures: int) -> Values:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": every,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _container(
    name: str, form: str, env: Values, port: tuple[str, int], memory: str, **more: Any
) -> Values:
    """
    Return a container.

    Args:
        port: The name and number of the port for metrics and probes.
        memory: What it requests, and its limit.
        more: Its image and mounts; its user, if that is not the pod's; where more
            variables are.
    """
    requested, limit = memory.split()
    container: Values = {"name": name}
    if form in ("native", "beside"):
        container["restartPolicy"] = "Always"
    container["image"] = more["image"]
    if "env_from" in more:
        container["envFrom"] = more["env_from"]
    # the status page shows the node; a pod has no other way to know it
    if form != "init":
        env = {**env, "NODE_NAME": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    container["env"] = variables(env)
    if form != "init":
        number = port[1]
        container["ports"] = [{"name": port[0], "containerPort": number}]
        if form == "native":
            container["startupProbe"] = _probe("/readyz", port[0], 1, 300)
        elif form == "extra":
            container["startupProbe"] = _probe("/healthz", port[0], 2, 30)
        container["livenessProbe"] = _probe("/healthz", port[0], 10, 3)
    container["resources"] = {
        "requests": {"cpu": "10m", "memory": requested},
        "limits": {"cpu": "1", "memory": limit},
    }
    # The PodSecurity level `restricted`.
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        **({"runAsUser": more["user"]} if "user" in more else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container["volumeMounts"] = more["mounts"]
    return container


def _one_shot(prefix: str) -> Values:
    return {f"{prefix}ONE_SHOT": "true", f"{prefix}ONE_SHOT_DEADLINE": "5m"}


class S3Sync:
    """
    Args:
        at: Where its values come from.
        more: Settings in addition to the contract's four variables.
        folder: Where it publishes.
        volume: The name of its volume.
        is_signed: Whether the ConfigMap of trusted keys is mounted.
        endpoint: Not empty for another store than AWS, with keys from a Secret; `ca`:
            a ConfigMap has the certificate that its server's is checked with.
    """

    CA = "/etc/s3-ca"

    def __init__(
        self,
        at: Values = REFERRED,
        more: Values | None = None,
        folder: str = DAGS,
        volume: str = "s3-dags",
        is_signed: bool = False,
        endpoint: str = "",
    ) -> None:
        self.at = at
        self.more = more or {}
        self.folder = folder
        self.volume = volume
        self.keys = "/etc/s3-sync/keys" if is_signed else ""
        self.has_endpoint = bool(endpoint)
        self.has_ca = endpoint == "ca"

    def container(self, form: str, gate: Values | None = None) -> Values:
        env = {
            "AWS_BUCKET": self.at["bucket"],
            "KEY_PATH": self.at["path"],
            "DEST_PATH": self.folder,
            "INTERVAL": self.at["interval"],
            **self._store(),
            **self.more,
            **(gate or {}),
        }
        mounts = [_mount(self.volume, self.folder)]
        if self.has_ca:
            mounts.append(_mount("s3-ca", self.CA, read_only=True))
        if self.keys:
            env["S3_SYNC_TRUSTED_KEYS"] = self.keys
            mounts.append(_mount("s3-sync-keys", self.keys, read_only=True))
        if form == "init":
            env |= _one_shot("S3_SYNC_")
        port = ("s3-sync-http", 9811)
        image = _image("s3-sync", self.at)
        return _container(
            "s3-sync", form, env, port, "64Mi 384Mi", image=image, mounts=mounts
        )

    def _store(self) -> Values:
        if not self.has_endpoint:
            return {}
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        found = {
            "AWS_ENDPOINT_URL_S3": self.at["endpoint"],
            "AWS_REGION": self.at["region"],
            **{
                name: {"secretKeyRef": {"name": "s3-keys", "key": name}}
                for name in names
            },
        }
        return {**found, "AWS_CA_BUNDLE": f"{self.CA}/ca.crt"} if self.has_ca else found

    def volumes(self) -> list[Values]:
        found: list[Values] = [{"name": self.volume, "emptyDir": {"sizeLimit": "1Gi"}}]
        if self.has_ca:
            found.append({"name": "s3-ca", "configMap": {"name": "s3-ca"}})
        if self.keys:
            found.append(
                {"name": "s3-sync-keys", "configMap": {"name": "s3-sync-keys"}}
            )
        return found

    def mounts(self) -> list[Values]:
        """
        Return the mounts of Airflow's containers.
        """
        return [_mount(self.volume, self.folder, read_only=True)]

    def account(self) -> Values:
        return {
            "create": True,
            "annotations": {"eks.amazonaws.com/role-arn": self.at["role"]},
        }


_GIT_TMP: Values = {
    "name": "git-sync-tmp",
    "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"},
}


class GitSync:
    """
    Args:
        at: Where its values come from.
        claim: A claim for the commits, which other pods read; then the password is in
            variables.
        link: The name of the link to the commit.
    """

    def __init__(
        self, at: Values = REFERRED, claim: str = "", link: str = "repo"
    ) -> None:
        self.at = at
        self.claim = claim
        self.link = link

    def of_the_chart(self, gate: Values) -> Values:
        """
        Return the values of the chart's own git-sync, and of a volume for /tmp.

        The chart adds `env` to all of its containers, also in task pods.
        """
        ours = self.container("native")
        node = {"NODE_NAME": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
        git_sync = {
            "enabled": True,
            "repo": self.at["repo"],
            # two spellings of one thing: the chart sets both
            "branch": self.at["ref"],
            "ref": self.at["ref"],
            "subPath": "dags",
            "credentialsSecret": "git-credentials",
            "period": self.at["period"],
            "maxFailures": -1,
            "recommendedProbeSetting": True,
            "env": variables({**gate, **node}),
            "emptyDirConfig": {"sizeLimit": "2Gi"},
            "resources": ours["resources"],
            "securityContexts": {
                "container": {
                    name: value
                    for name, value in ours["securityContext"].items()
                    if name != "runAsUser"
                }
            },
            "extraVolumeMounts": [_mount("git-sync-tmp", TMP)],
        }
        return {"dags": {"gitSync": git_sync}, "volumes": [_GIT_TMP]}

    def container(self, form: str, gate: Values | None = None) -> Values:
        credentials = "/etc/git-credentials"
        env = {
            "GITSYNC_REPO": self.at["repo"],
            "GITSYNC_REF": self.at["ref"],
            "GITSYNC_ROOT": "/git",
            "GITSYNC_LINK": self.link,
            # 0, its default: one failed poll fails a task pod
            "GITSYNC_MAX_FAILURES": "-1",
        }
        if form != "init":
            env["GITSYNC_PERIOD"] = self.at["period"]
        mounts = [_mount("git-dags", "/git"), _mount("git-sync-tmp", TMP)]
        more: Values = {}
        if self.claim:
            more["env_from"] = [{"secretRef": {"name": "git-credentials"}}]
        else:
            env["GIT_SYNC_WRAPPER_USERNAME_FILE"] = f"{credentials}/GITSYNC_USERNAME"
            env["GITSYNC_PASSWORD_FILE"] = f"{credentials}/GITSYNC_PASSWORD"
            mounts.append(_mount("git-credentials", credentials, read_only=True))
        env |= gate or {}
        if form == "init":
            env |= _one_shot("GIT_SYNC_WRAPPER_")
        more |= {
            "image": _image("git-sync-wrapper", self.at),
            "mounts": mounts,
            "user": 65533,
        }
        port = ("git-sync-http", 9814)
        return _container("git-sync-wrapper", form, env, port, "64Mi 256Mi", **more)

    def volumes(self) -> list[Values]:
        place: Values = {"emptyDir": {"sizeLimit": "2Gi"}}
        if self.claim:
            place = {"persistentVolumeClaim": {"claimName": self.claim}}
        secret = {"secretName": "git-credentials", "defaultMode": Octal(0o440)}
        return [
            {"name": "git-dags", **place},
            _GIT_TMP,
            *([] if self.claim else [{"name": "git-credentials", "secret": secret}]),
        ]

    def mounts(self) -> list[Values]:
        """
        Return the mounts of Airflow's containers.
        """
        return [_mount("git-dags", "/git", read_only=True)]


class Kerberos:
    """
    Args:
        at: Where its values come from.
        claim: A claim for the ticket, which other pods read.
    """

    CCACHE = "/var/kerberos-ccache/cache"
    CONFIG = "/etc/krb5/krb5.conf"

    def __init__(self, at: Values = REFERRED, claim: str = "") -> None:
        self.at = at
        self.claim = claim

    def container(self, form: str) -> Values:
        env = {
            "KRB5_CONFIG": self.CONFIG,
            "INTERVAL": "1h",
            "KERBEROS_PRINCIPAL": self.at["principal"],
            "KERBEROS_CCACHE": self.CCACHE,
        }
        if form == "init":
            env |= _one_shot("KERBEROS_")
        mounts = [
            _mount("krb5-keytab", "/etc/keytab", read_only=True),
            _mount("krb5-conf", "/etc/krb5", read_only=True),
            _mount("krb5-ccache", "/var/kerberos-ccache"),
        ]
        port = ("kerberos-http", 9813)
        image = _image("kerberos", self.at)
        return _container(
            "kerberos", form, env, port, "48Mi 96Mi", image=image, mounts=mounts
        )

    def volumes(self) -> list[Values]:
        place: Values = {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
        if self.claim:
            place = {"persistentVolumeClaim": {"claimName": self.claim}}
        secret = {"secretName": self.at["secretName"], "defaultMode": Octal(0o440)}
        return [
            {"name": "krb5-keytab", "secret": secret},
            {"name": "krb5-conf", "configMap": {"name": "airflow-krb5-conf"}},
            {"name": "krb5-ccache", **place},
        ]

    def mounts(self) -> list[Values]:
        """
        Return the mounts of Airflow's containers: never the keytab.
        """
        return [
            _mount("krb5-conf", "/etc/krb5", read_only=True),
            _mount("krb5-ccache", "/var/kerberos-ccache", read_only=True),
        ]

    def env(self) -> list[Values]:
        """
        Return the variables of Airflow's containers.
        """
        return variables(
            {"KRB5_CONFIG": self.CONFIG, "KRB5CCNAME": f"FILE:{self.CCACHE}"}
        )


class SyncPerm:
    """
    An ordinary container, because the web server never waits for it.
    """

    def container(self) -> Values:
        secret = {
            "name": '{{ include "airflow_metadata_secret" . }}',
            "key": "connection",
        }
        env = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": {"secretKeyRef": secret},
            "INTERVAL": "{{ .Values.sidecars.syncPerm.interval }}",
        }
        config = "{{ .Values.airflowHome }}/airflow.cfg"
        mounts = [
            _mount("config", config, subPath="airflow.cfg", read_only=True),
            _mount("sync-perm-tmp", TMP),
        ]
        port = ("sync-perm-http", 9812)
        image = _image("sync-perm", REFERRED)
        return _container(
            "sync-perm", "extra", env, port, "64Mi 512Mi", image=image, mounts=mounts
        )

    def volumes(self) -> list[Values]:
        return [{"name": "sync-perm-tmp", "emptyDir": {"sizeLimit": "64Mi"}}]
