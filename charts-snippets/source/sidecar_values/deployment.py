"""
The values for one deployment: what `make values` prints, and the files to paste.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from sidecar_values.containers import (
    DAGS,
    REGISTRY,
    TAG,
    WRITTEN,
    GitSync,
    Kerberos,
    S3Sync,
    SyncPerm,
    variables,
)
from sidecar_values.yaml_text import Noted, Shared, text_of

Values = dict[str, Any]
Choice = Mapping[str, str]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "AIRFLOW": ("3", "2", ""),
    "EXECUTOR": ("LocalExecutor", "CeleryExecutor", "KubernetesExecutor", ""),
    "SOURCE": ("listing", "release", "git", ""),
    "GATE": ("1", ""),
    "VERSIONS": ("1", ""),
    "SIGNED": ("1", ""),
    "KERBEROS": ("1", ""),
    "SYNC_PERM": ("1", ""),
}
"""The words of `make values`, and what each may be; all may be omitted."""

_SOURCES = {
    "listing": "DAGs from an S3 prefix",
    "release": "releases from S3",
    "git": "DAGs from git",
}
_BUNDLE = "/opt/airflow/sidecar-bundle"
_KEEP_COMMITS = ("LocalExecutor", "CeleryExecutor")
"""Tasks run in pods that outlive a commit; a task pod has only the newest one."""


def complaints(choice: Choice) -> list[str]:
    """
    Return what is wrong with the words, with what to write instead.
    """
    found = []
    for name, word in choice.items():
        near = get_close_matches(name, CHOICES, n=1)
        words = f"{near[0]}={word}" if near else "one of " + ", ".join(CHOICES)
        if name in CHOICES:
            words = " or ".join(filter(None, CHOICES[name]))
        if word not in CHOICES.get(name, ()):
            found.append(f"{name}={word}: write {words}, or omit it")
    if found:
        return found
    source = choice["SOURCE"]
    if not (source or choice["KERBEROS"] or choice["SYNC_PERM"]):
        found.append(
            "nothing to run: write SOURCE=listing, release or git, KERBEROS=1 or SYNC_PERM=1"
        )
    if choice["GATE"] and not source:
        found.append("GATE=1: write SOURCE=listing, release or git")
    if choice["VERSIONS"] and (
        choice["AIRFLOW"] == "2" or source not in ("release", "git")
    ):
        found.append("VERSIONS=1: write AIRFLOW=3, and SOURCE=release or git")
    if (
        choice["VERSIONS"]
        and source == "git"
        and choice["EXECUTOR"] not in _KEEP_COMMITS
    ):
        found.append(
            "SOURCE=git VERSIONS=1: write EXECUTOR=LocalExecutor, CeleryExecutor or "
            "SOURCE=release, because a new task pod has only the newest commit"
        )
    if choice["SIGNED"] and source != "release":
        found.append("SIGNED=1: write SOURCE=release")
    if source == "release" and not choice["EXECUTOR"]:
        found.append(
            "SOURCE=release: write EXECUTOR=LocalExecutor, CeleryExecutor or KubernetesExecutor"
        )
    return found


def values(
    choice: Choice,
    head: str = "",
    more: Values | None = None,
    block: Values | None = None,
    last: Values | None = None,
) -> str:
    """
    Return the values for one deployment, as text.

    Args:
        choice: A word for each of CHOICES, without complaints.
        head: The first comment, instead of one that describes the choice.
        more: Variables of s3-sync.
        block: Other values of the block `sidecars`.
        last: Keys to add.
    """
    made = _Deployment(choice, more or {})
    tree = made.tree()
    for key, value in (block or {}).items():
        inner = tree["sidecars"].value
        inner[key] = {**inner[key], **value} if isinstance(value, dict) else value
    tree |= last or {}
    return f"{head or made.head()}\n{text_of(tree, spaced=True)}"


class _Deployment:
    """
    Args:
        choice: A word for each of CHOICES.
        more: Variables of s3-sync.
    """

    def __init__(self, choice: Choice, more: Values) -> None:
        self.choice = choice
        self.executor = choice["EXECUTOR"]
        self.source = choice["SOURCE"]
        self.has_versions = bool(choice["VERSIONS"])
        self.dags = self._dags(more)
        self.tickets = Kerberos() if choice["KERBEROS"] else None

    @property
    def is_git(self) -> bool:
        return self.source == "git"

    @property
    def pins_tasks(self) -> bool:
        """
        Whether task pods get the scheduler's release; with DAG versions, they ask for
        their run's.
        """
        is_pinned = self.source == "release" and not self.has_versions
        return is_pinned and self.executor == "KubernetesExecutor"

    @property
    def is_snapshot(self) -> bool:
        return self.source == "release" or (
            self.source == "listing" and bool(self.choice["GATE"])
        )

    @property
    def place(self) -> str:
        return "git" if self.is_git else "S3"

    @property
    def places(self) -> str:
        return " and ".join(
            [self.place] * bool(self.source) + ["the KDC"] * bool(self.tickets)
        )

    def _dags(self, more: Values) -> S3Sync | GitSync | None:
        if self.is_git or not self.source:
            return GitSync() if self.is_git else None
        layout = {"S3_SYNC_LAYOUT": "snapshot"} if self.is_snapshot else {}
        if self.source == "release":
            layout = {"S3_SYNC_SOURCE": "release", **layout}
        return S3Sync(more={**layout, **more}, is_signed=bool(self.choice["SIGNED"]))

    def head(self) -> str:
        """
        Return the first comment: for whom, with what, what to change, what to run
        first.
        """
        is_alone = not (self.dags or self.tickets)  # sync-perm
        version = "2.11" if self.choice["AIRFLOW"] == "2" else "3"
        version += " and 2.11" * (is_alone and not self.choice["AIRFLOW"])
        chart = f"Official chart 1.22.0, Airflow {version}, Kubernetes 1.29+"
        executor = self.executor or "any executor" * is_alone
        executor = executor or "Celery and Kubernetes executor"
        parts = [
            *([_SOURCES[self.source]] if self.source else []),
            *["DAG versions"] * self.has_versions,
            *["signatures"] * bool(self.choice["SIGNED"]),
            *["tickets"] * bool(self.tickets),
            *["permissions"] * bool(self.choice["SYNC_PERM"]),
        ]
        gated = (
            ", GATE_GRAMMAR to the Python of your Airflow image"
            if self.choice["GATE"]
            else ""
        )
        versions = ", view_url_template" if self.has_versions else ""
        pinned = "; with --set-file airflowLocalSettings=airflow_local_settings.py"
        lines = [
            f"For: Airflow {version}, {executor}: {', '.join(parts)}.",
            f"{chart}{pinned * self.pins_tasks}.",
            f"Change: the block `sidecars`{gated}{versions}.",
        ]
        first = []
        if self.is_git:
            keys = "--from-literal=GITSYNC_USERNAME=… (and GITSYNC_PASSWORD)"
            first.append(f"secret generic git-credentials {keys}")
        if self.choice["SIGNED"]:
            first.append("configmap s3-sync-keys --from-file=keys/")
        if self.has_versions:
            module = "airflow-bundle/airflow_sidecar_bundle.py"
            first.append(f"configmap airflow-sidecar-bundle --from-file={module}")
        if self.tickets:
            first.append(
                "secret generic airflow-kerberos-keytab --from-file=airflow.keytab"
            )
            first.append("configmap airflow-krb5-conf --from-file=krb5.conf")
        lines += [""] * bool(first) + [
            f"Run first: kubectl create {one}" for one in first
        ]
        return "".join(f"# {line}\n" if line else "\n" for line in lines)

    def tree(self) -> Values:
        """
        Return all values.
        """
        found: Values = {
            "sidecars": Noted(
                "Not part of the chart: the lists below refer to these values, because the chart "
                "renders them as templates.",
                self._block(),
            )
        }
        if self.executor:
            found["executor"] = self.executor
        if self.choice["AIRFLOW"] == "2":
            found["airflowVersion"] = "2.11.2"
            found["images"] = {"airflow": {"tag": "2.11.2"}}
        if self.dags:
            found["config"] = self._config()
        if self.has_versions:
            found |= self._module()
        if self.dags:
            found["dagProcessor"] = self._dag_processor()
        if self.dags or self.tickets:
            found["triggerer"] = Noted(
                self._why_the_triggerer_waits(), self._of_tasks()
            )
            found |= self._scheduler()
            found |= self._workers()
        if self.choice["SYNC_PERM"]:
            found |= self._web()
        return found

    def _block(self) -> Values:
        block: Values = {"registry": REGISTRY}
        if self.is_git:
            block["gitSync"] = {
                "tag": TAG,
                **{key: WRITTEN[key] for key in ("repo", "ref", "period")},
            }
        elif self.source:
            block["roleArn"] = "arn:aws:iam::111122223333:role/airflow-s3-sync"
            block["bucket"] = WRITTEN["bucket"]
            path = "dags-releases" if self.source == "release" else WRITTEN["path"]
            block["s3Sync"] = {
                "tag": TAG,
                "keyPath": path,
                "interval": WRITTEN["interval"],
            }
        if self.tickets:
            block["kerberos"] = {"tag": TAG, "principal": WRITTEN["principal"]}
        if self.choice["SYNC_PERM"]:
            block["syncPerm"] = {"tag": TAG, "interval": "30s"}
        return block

    def _config(self) -> Values:
        is_2 = self.choice["AIRFLOW"] == "2"
        section, option = (
            ("scheduler", "dag_dir_list_interval")
            if is_2
            else ("dag_processor", "refresh_interval")
        )
        often = Noted(
            "How often Airflow looks for new files; the default is 5 minutes.",
            {option: 30},
        )
        return {section: often}

    def _where(self) -> list[Values]:
        """
        Return the variable that leads Airflow to the files of the sidecar.

        It is in each pod's own template: during a rollout, an old pod that restarts
        reads the new airflow.cfg, which all pods share, but still has the old sidecar.
        """
        folder = f"{DAGS}/current" if self.is_snapshot else DAGS
        name = "AIRFLOW__CORE__DAGS_FOLDER"
        return variables({name: "/git/repo/dags" if self.is_git else folder})

    def _module(self) -> Values:
        """
        Return the bundle for DAG versions and its module, for every component: a
        command of Airflow deactivates the bundles that its own container does not know.
        """
        mount = {"name": "sidecar-bundle", "mountPath": _BUNDLE, "readOnly": True}
        config = {"name": "airflow-sidecar-bundle"}
        bundles = json.dumps([self._bundle()], separators=(",\n ", ":"))
        name = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
        return {
            "env": Noted(
                "The bundle, and its module from a ConfigMap. If your image has it, remove "
                "PYTHONPATH and the next two keys.",
                variables({name: bundles, "PYTHONPATH": _BUNDLE}),
            ),
            "volumes": [{"name": "sidecar-bundle", "configMap": config}],
            "volumeMounts": [mount],
        }

    def _bundle(self) -> Values:
        if self.is_git:
            where = {"path": "/git/repo", "subdir": "dags"}
            url = "https://git.example.com/data-team/dags/commit/{version}"
        else:
            where = {"path": f"{DAGS}/current"}
            page = "https://console.aws.amazon.com/s3/object/my-airflow-bucket"
            url = f"{page}?prefix=dags-releases/releases/{{version}}.json.gz"
        # A refresh costs one readlink, so it can be frequent.
        kwargs = {**where, "refresh_interval": 5, "view_url_template": url}
        classpath = "airflow_sidecar_bundle.SidecarDagBundle"
        return {"name": "dags", "classpath": classpath, "kwargs": kwargs}

    def _gate(self) -> Values:
        """
        Return the gate of pods that live long enough to keep a last good revision.
        """
        if not self.choice["GATE"]:
            return {}
        prefix = "GIT_SYNC_WRAPPER_" if self.is_git else "S3_SYNC_"
        grammar = "3.11" if self.choice["AIRFLOW"] == "2" else "3.12"
        return {f"{prefix}GATE": "syntax", f"{prefix}GATE_GRAMMAR": grammar}

    def _native(self) -> list[Any]:
        assert self.dags
        return [Shared("dags", self.dags.container("native", self._gate()))]

    def _account(self) -> Values:
        if not isinstance(self.dags, S3Sync):
            return {}
        return {"serviceAccount": Shared("service-account", self.dags.account())}

    def _files(self) -> Values:
        """
        Return what Airflow needs in pods that read DAGs and have no ticket.
        """
        assert self.dags
        return {
            "extraVolumes": Shared("dags-volumes", self.dags.volumes()),
            "extraVolumeMounts": Shared("dags-mounts", self.dags.mounts()),
            "env": Shared("dags-env", self._where()),
        }

    def _dag_processor(self) -> Noted:
        # Without it, the scheduler of Airflow 2 would parse the DAGs.
        enabled = {"enabled": True} if self.choice["AIRFLOW"] == "2" else {}
        note = (
            f"Waits for {self.place} at startup, because Airflow treats an empty folder as the "
            "deletion of all DAGs."
        )
        rest = {"extraInitContainers": self._native(), **self._files()}
        return Noted(note, {**enabled, **self._account(), **rest})

    def _why_the_triggerer_waits(self) -> str:
        lines = []
        if self.dags:
            name = "git-sync-wrapper" if self.is_git else "s3-sync"
            lines.append(
                f"Waits for {self.place}, which brings the triggers in DAG files. If all are in "
                f"packages, remove {name} here."
            )
        if self.tickets:
            lines.append(
                "Waits for the KDC, because deferred operators may need a ticket. If none does, "
                "remove kerberos here."
            )
        return "\n".join(lines)

    def _of_tasks(self, dags: list[Any] | None = None) -> Values:
        """
        Return what pods need that run tasks, or their deferred part.

        Args:
            dags: The containers that bring the DAGs, if not the ones of all pods.
        """
        found = self._account()
        containers = (dags or self._native()) if self.dags else []
        if not self.tickets:
            return {**found, "extraInitContainers": containers, **self._files()}
        kerberos = Shared("kerberos", self.tickets.container("native"))
        volumes = self.dags.volumes() if self.dags else []
        mounts = self.dags.mounts() if self.dags else []
        where = self._where() if self.dags else []
        return {
            **found,
            "extraInitContainers": [*containers, kerberos],
            "extraVolumes": Shared("task-volumes", volumes + self.tickets.volumes()),
            "extraVolumeMounts": Shared("task-mounts", mounts + self.tickets.mounts()),
            "env": Shared("task-env", where + self.tickets.env()),
        }

    @property
    def _without(self) -> str:
        return " or ".join(
            ["its ticket"] * bool(self.tickets) + ["its file"] * bool(self.dags)
        )

    def _scheduler(self) -> Values:
        if self.executor == "LocalExecutor":
            note = f"Runs the tasks: waits for {self.places}; none starts without {self._without}."
            return {"scheduler": Noted(note, self._of_tasks())}
        if not self.pins_tasks:
            return self._scheduler_of_airflow_2()
        assert self.dags
        note = (
            "Reads no DAGs and starts without S3, so s3-sync is an ordinary container here. Task "
            "pods get the release in its folder; before it has one, they get the current release."
        )
        extra = {"extraContainers": [self.dags.container("extra", self._gate())]}
        return {"scheduler": Noted(note, {**self._account(), **extra, **self._files()})}

    def _scheduler_of_airflow_2(self) -> Values:
        if not self.dags or self.choice["AIRFLOW"] != "2":
            return {}
        note = "Reads no DAGs, but names the file of a task relative to this folder."
        return {"scheduler": Noted(note, {"env": Shared("dags-env", self._where())})}

    def _workers(self) -> Values:
        found = {}
        if self.executor in ("CeleryExecutor", ""):
            note = f"Workers wait for {self.places}; no task starts without {self._without}."
            found["celery"] = Noted(note, self._of_tasks())
        if self.executor in ("KubernetesExecutor", ""):
            found["kubernetes"] = Noted(
                self._how_task_pods_wait(), self._of_tasks(self._of_task_pods())
            )
        return {"workers": found} if found else {}

    def _of_task_pods(self) -> list[Any]:
        if not self.dags:
            return []
        return [self.dags.container("beside" if self.has_versions else "init")]

    def _how_task_pods_wait(self) -> str:
        lines = []
        if self.has_versions:
            lines.append(
                "It starts with the task, which requests the version of its run and waits for it."
            )
        elif self.dags:
            lines.append(
                f"Task pods wait for {self.place} for up to 5 minutes, and then fail."
            )
        if self.tickets:
            lines.append(
                "Task pods wait for the KDC; kerberos then runs as long as the task."
            )
        if self.choice["GATE"]:
            lines.append(
                "They have no gate: on their empty volume, it would compile every file before each "
                "task."
            )
        return "\n".join(lines)

    def _web(self) -> Values:
        names = {"2": ["webserver"], "3": ["apiServer"]}.get(
            self.choice["AIRFLOW"], ["apiServer", "webserver"]
        )
        one = SyncPerm()
        parts = {
            "extraContainers": Shared("sync-perm", [one.container()]),
            "extraVolumes": Shared("sync-perm-volumes", one.volumes()),
        }
        note = "Runs beside the web server, which does not wait for it."
        if len(names) > 1:
            note += " Airflow 3 has an API server, Airflow 2 a webserver."
        return {names[0]: Noted(note, parts), **dict.fromkeys(names[1:], parts)}
