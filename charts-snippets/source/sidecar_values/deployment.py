"""
The values for one deployment: what `make values` prints, and the files to paste.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
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
    "EXECUTOR": (
        "LocalExecutor",
        "CeleryExecutor",
        "KubernetesExecutor",
        "CeleryExecutor,KubernetesExecutor",
        "",
    ),
    "SOURCE": ("listing", "release", "git", "chart-git", ""),
    "ENDPOINT": ("1", "ca", ""),
    "LAYOUT": ("snapshot", ""),
    "GATE": ("1", ""),
    "VERSIONS": ("1", ""),
    "SIGNED": ("1", ""),
    "KERBEROS": ("1", "init", ""),
    "SYNC_PERM": ("1", ""),
}
"""The words of `make values`, and what each may be; all may be omitted."""

_SOURCES = {
    "listing": "DAGs from an S3 prefix",
    "release": "releases from S3",
    "git": "DAGs from git",
    "chart-git": "the chart's own git-sync with our image",
}
_BUNDLE = "/opt/airflow/sidecar-bundle"
_FROM_S3 = ("listing", "release")
_OF_2 = "2.11.2"
_STORE = "https://s3.example.com"
_KEEP_COMMITS = ("LocalExecutor", "CeleryExecutor")
"""Tasks run in pods that outlive a commit; a task pod has only the newest one."""


def complaints(choice: Choice) -> list[str]:
    """
    Return what is wrong with the words, with what to write instead.
    """
    found = [
        problem for name, word in choice.items() if (problem := _complaint(name, word))
    ]
    if not found:
        found = [instead for is_refused, instead in _refusals(choice) if is_refused]
    return found


def _complaint(name: str, word: str) -> str:
    """
    Return what is wrong with one word, with what is allowed and the nearest; empty if
    nothing is.
    """
    if name not in CHOICES:
        near = get_close_matches(name.upper(), CHOICES, n=1)
        hint = f"; did you mean {near[0]}={word}?" if near else ""
        return f"{name}={word}: write one of {', '.join(CHOICES)}{hint}"
    if word in CHOICES[name]:
        return ""
    allowed = [one for one in CHOICES[name] if one]
    folded = {one.lower(): one for one in allowed}
    near = get_close_matches(word.lower(), folded, n=1)
    hint = f"; did you mean {folded[near[0]]}?" if near else ""
    return f"{name}={word}: write {' or '.join(allowed)}, or omit it{hint}"


def _refusals(choice: Choice) -> Iterator[tuple[bool, str]]:
    """
    Yield each combination that cannot be printed: whether it was asked for, and what to
    write instead.
    """
    source, executor = choice["SOURCE"], choice["EXECUTOR"]
    yield (
        not (source or choice["KERBEROS"] or choice["SYNC_PERM"]),
        "nothing to run: write SOURCE=listing, release, git, chart-git, KERBEROS=1 or SYNC_PERM=1",
    )
    yield (
        bool(choice["GATE"]) and not source,
        "GATE=1: write SOURCE=listing, release, git or chart-git",
    )
    yield (
        source == "chart-git"
        and bool(choice["GATE"])
        and executor not in _KEEP_COMMITS,
        "SOURCE=chart-git GATE=1: write SOURCE=git: the chart would give task pods the gate, too",
    )
    yield (
        bool(choice["ENDPOINT"]) and source not in _FROM_S3,
        f"ENDPOINT={choice['ENDPOINT']}: write SOURCE=listing or release",
    )
    yield (
        bool(choice["LAYOUT"]) and source != "listing",
        "LAYOUT=snapshot: write SOURCE=listing, or omit it: releases and commits are snapshots",
    )
    has_versions = bool(choice["VERSIONS"])
    yield (
        has_versions and (choice["AIRFLOW"] == "2" or source not in ("release", "git")),
        "VERSIONS=1: write AIRFLOW=3, and SOURCE=release or git",
    )
    yield (
        has_versions and source == "git" and executor not in _KEEP_COMMITS,
        "SOURCE=git VERSIONS=1: write EXECUTOR=LocalExecutor or CeleryExecutor, or SOURCE=release",
    )
    yield (
        choice["KERBEROS"] == "init" and executor in _KEEP_COMMITS,
        "KERBEROS=init: write EXECUTOR=KubernetesExecutor",
    )
    yield (
        bool(choice["SIGNED"]) and source != "release",
        "SIGNED=1: write SOURCE=release",
    )


def values(choice: Choice) -> str:
    """
    Return the values for one deployment, as text.

    Args:
        choice: A word for each of CHOICES, without complaints.
    """
    made = _Deployment(choice)
    return f"{made.head()}\n{text_of(made.tree(), spaced=True)}"


class _Deployment:
    """
    Args:
        choice: A word for each of CHOICES.
    """

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.executor = choice["EXECUTOR"]
        self.source = choice["SOURCE"]
        self.has_versions = bool(choice["VERSIONS"])
        self.has_one_shots = choice["KERBEROS"] == "init"
        self.dags = self._dags()
        self.tickets = Kerberos() if choice["KERBEROS"] else None

    @property
    def is_git(self) -> bool:
        return self.source == "git"

    @property
    def is_charts(self) -> bool:
        """
        Whether the chart adds the containers that bring the DAGs.
        """
        return self.source == "chart-git"

    @property
    def has_task_pods(self) -> bool:
        return self.executor not in _KEEP_COMMITS

    @property
    def has_workers(self) -> bool:
        return self.executor not in ("LocalExecutor", "KubernetesExecutor")

    @property
    def pins_tasks(self) -> bool:
        """
        Whether task pods get the scheduler's release; with DAG versions, they ask for
        their run's.
        """
        is_pinned = self.source == "release" and not self.has_versions
        return is_pinned and self.has_task_pods

    @property
    def is_snapshot(self) -> bool:
        return self.source == "release" or (
            self.source == "listing"
            and bool(self.choice["GATE"] or self.choice["LAYOUT"])
        )

    @property
    def place(self) -> str:
        return "git" if self.is_git else "S3"

    @property
    def places(self) -> str:
        return " and ".join(
            [self.place] * bool(self.dags) + ["the KDC"] * bool(self.tickets)
        )

    def _dags(self) -> S3Sync | GitSync | None:
        if self.source not in _FROM_S3:
            return GitSync() if self.is_git else None
        layout = {"S3_SYNC_LAYOUT": "snapshot"} if self.is_snapshot else {}
        if self.source == "release":
            layout = {"S3_SYNC_SOURCE": "release", **layout}
        return S3Sync(
            more=layout,
            is_signed=bool(self.choice["SIGNED"]),
            endpoint=self.choice["ENDPOINT"],
        )

    def head(self) -> str:
        """
        Return the first comment: for whom, with what, what to change, what to run
        first.
        """
        is_alone = not (self.source or self.tickets)  # sync-perm
        version = "2.11" if self.choice["AIRFLOW"] == "2" else "3"
        version += " and 2.11" * (is_alone and not self.choice["AIRFLOW"])
        executor = self.executor.replace(",", " and ") or "any executor" * is_alone
        executor = executor or "Celery and Kubernetes executor"
        parts = [
            *([_SOURCES[self.source]] if self.source else []),
            *["another S3 store"] * bool(self.choice["ENDPOINT"]),
            *["DAG versions"] * self.has_versions,
            *["signatures"] * bool(self.choice["SIGNED"]),
            *["tickets"] * bool(self.tickets),
            *["permissions"] * bool(self.choice["SYNC_PERM"]),
        ]
        pinned = "; with --set-file airflowLocalSettings=airflow_local_settings.py"
        chart = f"Official chart 1.22.0, Airflow {version}, Kubernetes 1.29+"
        lines = [
            f"For: Airflow {version}, {executor}: {', '.join(parts)}.",
            f"{chart}{pinned * self.pins_tasks}.",
            f"Change: {', '.join(self._to_change())}.",
            f"Join: {self._to_join()}",
            *([f"Role: {self._to_attach()}"] if self._account() else []),
        ]
        lines = [part for line in lines for part in textwrap.wrap(line, 116)]
        create = "kubectl create -n airflow"
        first = [f"Run first: {create} {one}" for one in self._to_create()]
        lines += [""] * bool(first) + first
        return "".join(f"# {line}\n" if line else "\n" for line in lines)

    def _to_change(self) -> Iterator[str]:
        if self._block():
            yield "the block `sidecars`"
        if self.is_charts:
            yield "images.gitSync, and repo, branch, ref and subPath of dags.gitSync"
        if self.choice["GATE"]:
            yield "GATE_GRAMMAR to the Python of your Airflow image"
        if self.has_versions:
            yield "view_url_template"
            yield "the bundle's name to the one that you have (the chart's own is dags-folder)"
        if self.choice["AIRFLOW"] == "2":
            yield f"both {_OF_2} if your Airflow is another 2.11"

    def _to_join(self) -> str:
        """
        Return what Helm does to lists of the user, who finds out late.
        """
        workers = ["workers.celery"] * self.has_workers
        workers += ["workers.kubernetes"] * self.has_task_pods
        also = ""
        if workers and (self.dags or self.tickets):
            names = " or ".join(workers)
            also = f"; one under {names} also replaces yours under workers"
        return f"a list below replaces yours{also}. Remove the container that a sidecar replaces."

    def _to_attach(self) -> str:
        """
        Return what happens to a role that the pods already have.
        """
        told = (
            "roleArn replaces the role of these service accounts. If they have one, write its ARN "
            "there, and attach the policy to it."
        )
        if self.has_task_pods:
            told += (
                " Task pods get another account, airflow-worker-kubernetes: add it to the "
                "trust policy."
            )
        return told

    def _to_create(self) -> Iterator[str]:
        """
        Yield the arguments of `kubectl create` for what the values refer to.
        """
        secret, values = "secret generic", "configmap"
        if self.source in ("git", "chart-git"):
            names = "GIT{,_}SYNC" if self.is_charts else "GITSYNC"
            keys = f"{names}_{{USERNAME,PASSWORD}}"
            yield f"{secret} git-credentials --from-env-file=…: {keys}"
        if self.choice["ENDPOINT"]:
            yield f"{secret} s3-keys --from-env-file=s3-keys.env"
        if self.choice["ENDPOINT"] == "ca":
            yield f"{values} s3-ca --from-file=ca.crt"
        if self.choice["SIGNED"]:
            yield f"{values} s3-sync-keys --from-file=keys/"
        if self.has_versions:
            module = "airflow-bundle/airflow_sidecar_bundle.py"
            yield f"{values} airflow-sidecar-bundle --from-file={module}"
        if self.tickets:
            yield f"{secret} airflow-kerberos-keytab --from-file=airflow.keytab"
            yield f"{values} airflow-krb5-conf --from-file=krb5.conf"

    def tree(self) -> Values:
        """
        Return all values.
        """
        found: Values = {}
        if self._block():
            found["sidecars"] = Noted(
                "Not part of the chart: the lists below refer to these values, because the chart "
                "renders them as templates.",
                self._block(),
            )
        if self.executor:
            found["executor"] = self.executor
        images: Values = {}
        if self.choice["AIRFLOW"] == "2":
            found["airflowVersion"] = _OF_2
            images["airflow"] = {"tag": _OF_2}
        if self.is_charts:
            images["gitSync"] = {
                "repository": f"{REGISTRY}/git-sync-wrapper",
                "tag": TAG,
            }
        if images:
            found["images"] = images
        if self.source:
            found["config"] = self._config()
        if self.is_charts:
            found |= GitSync(WRITTEN).of_the_chart(self._gate())
        if self.has_versions:
            found |= self._module()
        if self.dags:
            found["dagProcessor"] = self._dag_processor()
        if self.dags or self.tickets:
            found |= self._triggerer()
            found |= self._scheduler()
            found |= self._workers()
        if self.choice["SYNC_PERM"]:
            found |= self._web()
        return found

    def _block(self) -> Values:
        """
        Return the block `sidecars`; empty if no sidecar refers to it.
        """
        block: Values = {}
        if self.is_git:
            block["gitSync"] = {
                "tag": TAG,
                **{key: WRITTEN[key] for key in ("repo", "ref", "period")},
            }
        elif self.source in _FROM_S3:
            if self.choice["ENDPOINT"]:
                block["endpoint"] = _STORE
                block["region"] = "us-east-1"
            else:
                block["roleArn"] = "arn:aws:iam::111122223333:role/airflow-s3-sync"
            block["bucket"] = WRITTEN["bucket"]
            path = "dags-releases" if self.source == "release" else WRITTEN["path"]
            block["s3Sync"] = {
                "tag": TAG,
                "keyPath": path,
                "interval": WRITTEN["interval"],
            }
        if self.tickets:
            keys = ("principal", "secretName")
            block["kerberos"] = {"tag": TAG, **{key: WRITTEN[key] for key in keys}}
        if self.choice["SYNC_PERM"]:
            block["syncPerm"] = {"tag": TAG, "interval": "30s"}
        return {"registry": REGISTRY, **block} if block else {}

    def _config(self) -> Values:
        is_2 = self.choice["AIRFLOW"] == "2"
        section, option = (
            ("scheduler", "dag_dir_list_interval")
            if is_2
            else ("dag_processor", "refresh_interval")
        )
        often = Noted(
            "How often Airflow looks for new files; the default is 5 minutes.",
            {option: 5},
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
            page = "https://console.aws.amazon.com/s3/object/my-airflow-bucket?prefix="
            if self.choice["ENDPOINT"]:
                page = f"{_STORE}/my-airflow-bucket/"
            url = f"{page}dags-releases/releases/{{version}}.json.gz"
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
        prefix = "S3_SYNC_" if self.source in _FROM_S3 else "GIT_SYNC_WRAPPER_"
        grammar = "3.11" if self.choice["AIRFLOW"] == "2" else "3.12"
        return {f"{prefix}GATE": "syntax", f"{prefix}GATE_GRAMMAR": grammar}

    def _native(self) -> list[Any]:
        assert self.dags
        return [Shared("dags", self.dags.container("native", self._gate()))]

    def _account(self) -> Values:
        if not isinstance(self.dags, S3Sync) or self.choice["ENDPOINT"]:
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

    def _triggerer(self) -> Values:
        """
        Return the triggerer, which on Airflow 3 never imports from the DAG folder.
        """
        lines = []
        has_files = bool(self.dags) and self.choice["AIRFLOW"] == "2"
        if has_files:
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
        parts = self._of_tasks() if has_files else self._of_tickets()
        return {"triggerer": Noted("\n".join(lines), parts)} if lines else {}

    def _of_tickets(self, form: str = "native") -> Values:
        """
        Return what pods need that have a ticket and read no DAGs.
        """
        if not self.tickets:
            return {}
        return {
            "extraInitContainers": [self._kerberos(form)],
            "extraVolumes": Shared("ticket-volumes", self.tickets.volumes()),
            "extraVolumeMounts": Shared("ticket-mounts", self.tickets.mounts()),
            "env": Shared("ticket-env", self.tickets.env()),
        }

    def _kerberos(self, form: str) -> Shared:
        assert self.tickets
        return Shared(f"kerberos-{form}", self.tickets.container(form))

    def _of_tasks(self, dags: list[Any] | None = None) -> Values:
        """
        Return what pods need that run tasks, or their deferred part.

        Args:
            dags: Of task pods: the containers that bring the DAGs.
        """
        form = "init" if self.has_one_shots and dags is not None else "native"
        if not self.dags:
            return self._of_tickets(form)
        found = self._account()
        containers = dags or self._native()
        if not self.tickets:
            return {**found, "extraInitContainers": containers, **self._files()}
        volumes = self.dags.volumes() + self.tickets.volumes()
        mounts = self.dags.mounts() + self.tickets.mounts()
        return {
            **found,
            "extraInitContainers": [*containers, self._kerberos(form)],
            "extraVolumes": Shared("task-volumes", volumes),
            "extraVolumeMounts": Shared("task-mounts", mounts),
            "env": Shared("task-env", self._where() + self.tickets.env()),
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
        if self.has_workers:
            note = f"Workers wait for {self.places}; no task starts without {self._without}."
            found["celery"] = Noted(note, self._of_tasks())
        if self.has_task_pods:
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
            lines.append(f"Task pods wait for {self.place} for 5 minutes, then fail.")
        if self.has_one_shots:
            lines.append("Task pods wait for the KDC, and never replace their ticket.")
        elif self.tickets:
            lines.append(
                "Task pods wait for the KDC; kerberos runs as long as they do."
            )
        if self.choice["GATE"]:
            lines.append(
                "They have no gate: it would compile all files before each task."
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
