"""
The stacks of values files that are rendered and started, and the sidecars of their pods.
"""

from __future__ import annotations

from tests.chart.rendered import kustomize, printed

Kinds = dict[str, dict[str, str]]

DAGS, TICKETS = {"s3-sync": "native"}, {"kerberos": "native"}
COMMITS, COMMITS_EXTRA = {"git-sync-wrapper": "native"}, {"git-sync-wrapper": "extra"}
PERMISSIONS = {"sync-perm": "extra"}
EXTRA, TICKETS_EXTRA = {"s3-sync": "extra"}, {"kerberos": "extra"}
TASK = {"s3-sync": "init", "kerberos": "native"}
WHOLE_3: Kinds = {
    "dag-processor": DAGS,
    "scheduler": {"s3-sync": "extra"},
    "triggerer": DAGS | TICKETS,
    "api-server": PERMISSIONS,
    "task pod": TASK,
}
WHOLE_2: Kinds = {**WHOLE_3, "webserver": PERMISSIONS}
del WHOLE_2["api-server"]
GIT_3: Kinds = {"triggerer": TICKETS, "api-server": PERMISSIONS, "task pod": TICKETS}
GIT_2: Kinds = {"triggerer": TICKETS, "webserver": PERMISSIONS, "task pod": TICKETS}

# The pods of one sidecar alone, with the chart's defaults.
READERS = ("dag-processor", "triggerer", "worker")
READERS_AS_PODS = ("dag-processor", "triggerer", "task pod")
AS_PODS, AS_CELERY = "executor=KubernetesExecutor", "executor=CeleryExecutor"

EXPECTED: dict[tuple[str, ...], Kinds] = {
    ("values.yaml",): WHOLE_3,
    ("values.yaml", "values-dev.yaml"): WHOLE_3,
    ("values.yaml", "values-prd.yaml"): WHOLE_3,
    ("values.yaml", "values-airflow-2.yaml", "values-dev.yaml"): WHOLE_2,
    ("values.yaml", "values-airflow-2.yaml", "values-prd.yaml"): WHOLE_2,
    ("values.yaml", "values-prd.yaml", "examples/fargate.yaml"): WHOLE_3,
    ("values.yaml", "values-git-sync.yaml", "values-prd.yaml"): GIT_3,
    ("values.yaml", "values-airflow-2.yaml", "values-git-sync.yaml", "values-dev.yaml"): GIT_2,
    (AS_CELERY, "values.yaml", "values-prd.yaml"): {
        **{name: kinds for name, kinds in WHOLE_3.items() if name != "task pod"},
        "worker": DAGS | TICKETS,
    },
    (AS_CELERY, "values.yaml", "values-git-sync.yaml", "values-prd.yaml"): {
        **{name: kinds for name, kinds in GIT_3.items() if name != "task pod"},
        "worker": TICKETS,
    },
    ("s3-sync.extra.yaml",): dict.fromkeys(READERS, EXTRA),
    ("s3-sync.native.yaml",): dict.fromkeys(READERS, DAGS),
    ("s3-sync.snapshot.yaml",): dict.fromkeys(READERS, DAGS),
    (AS_PODS, "s3-sync.snapshot.yaml"): {
        **dict.fromkeys(READERS_AS_PODS, DAGS),
        "task pod": {"s3-sync": "init"},
    },
    (AS_PODS, "s3-sync.native.yaml", "s3-sync.init.yaml"): {
        **dict.fromkeys(READERS_AS_PODS, DAGS),
        "task pod": {"s3-sync": "init"},
    },
    (AS_PODS, "s3-sync.extra.yaml", "s3-sync.init.yaml"): {
        **dict.fromkeys(READERS_AS_PODS, EXTRA),
        "task pod": {"s3-sync": "init"},
    },
    (AS_PODS, "s3-sync.release.yaml"): {
        **dict.fromkeys(READERS_AS_PODS, DAGS),
        "scheduler": EXTRA,
        "task pod": {"s3-sync": "init"},
    },
    ("s3-sync.signed.yaml",): dict.fromkeys(READERS, DAGS),
    ("s3-sync.versions.yaml",): dict.fromkeys(("dag-processor", "worker", "scheduler"), DAGS),
    (AS_PODS, "s3-sync.versions.yaml"): dict.fromkeys(
        ("dag-processor", "task pod", "scheduler"), DAGS
    ),
    ("sync-perm.extra.yaml",): {"api-server": PERMISSIONS},
    ("airflowVersion=2.11.2", "sync-perm.extra.yaml"): {"webserver": PERMISSIONS},
    ("kerberos.extra.yaml",): dict.fromkeys(("triggerer", "worker"), TICKETS_EXTRA),
    ("kerberos.native.yaml",): dict.fromkeys(("triggerer", "worker"), TICKETS),
    (AS_PODS, "kerberos.native.yaml"): dict.fromkeys(("triggerer", "task pod"), TICKETS),
    (AS_PODS, "kerberos.init.yaml"): {"task pod": {"kerberos": "init"}},
    ("git-sync-wrapper.chart.yaml",): {},
    (AS_PODS, "git-sync-wrapper.codecommit.yaml"): {},
    ("git-sync-wrapper.extra.yaml",): dict.fromkeys(READERS, COMMITS_EXTRA),
    (AS_PODS, "git-sync-wrapper.native.yaml", "git-sync-wrapper.init.yaml"): {
        **dict.fromkeys(READERS_AS_PODS, COMMITS),
        "task pod": {"git-sync-wrapper": "init"},
    },
    ("git-sync-wrapper.versions.yaml",): dict.fromkeys(
        ("dag-processor", "worker", "scheduler"), COMMITS
    ),
    (AS_PODS, "git-sync-wrapper.versions.yaml"): dict.fromkeys(
        ("dag-processor", "task pod", "scheduler"), COMMITS
    ),
    ("examples/git-sync-deployment.yaml", "kerberos.native.yaml"): dict.fromkeys(
        ("triggerer", "worker"), TICKETS
    ),
    ("s3-sync.native.yaml", "examples/shared-ticket.yaml"): dict.fromkeys(READERS, DAGS),
}

# `dags_folder`, if the DAGs do not come from s3-sync.
FOLDERS = {
    "examples/git-sync-deployment.yaml": "/opt/airflow/dags/current",
    "git-sync-wrapper.chart.yaml": "/opt/airflow/dags/repo/dags",
    "git-sync-wrapper.codecommit.yaml": "/opt/airflow/dags/repo/dags",
    "git-sync-wrapper.extra.yaml": "/git/repo/dags",
    "git-sync-wrapper.native.yaml": "/git/repo/dags",
    "git-sync-wrapper.versions.yaml": "/git/repo/dags",
    "values-git-sync.yaml": "/opt/airflow/dags/repo/dags",
}

# The page's values with some of its components.
_S3, _S3_TASKS, _TICKETS, _TICKETS_TASKS = kustomize.COMPONENTS
BUILT: dict[tuple[str, ...], Kinds] = {
    (AS_CELERY, kustomize.THE_PAGES, _S3, _TICKETS): {
        "dag-processor": DAGS,
        "triggerer": DAGS | TICKETS,
        "worker": DAGS | TICKETS,
    },
    (AS_PODS, kustomize.THE_PAGES, *kustomize.COMPONENTS): {
        "dag-processor": DAGS,
        "triggerer": DAGS | TICKETS,
        "task pod": TASK,
    },
    ("executor=LocalExecutor", kustomize.THE_PAGES, _S3, _TICKETS): {
        "dag-processor": DAGS,
        "triggerer": DAGS | TICKETS,
        "scheduler": DAGS | TICKETS,
    },
    (AS_CELERY, kustomize.THE_PAGES, _TICKETS): dict.fromkeys(("triggerer", "worker"), TICKETS),
}
if kustomize.is_there():
    EXPECTED |= BUILT

IN_THE_CHART = {name for name, folder in FOLDERS.items() if "/repo/" in folder} - {
    "git-sync-wrapper.extra.yaml",
    "git-sync-wrapper.native.yaml",
    "git-sync-wrapper.versions.yaml",
}

EXPECTED |= {(name,): printed.kinds(choice) for name, choice in printed.ALL.items()}
DAILY = [names for names in EXPECTED if names[0] not in printed.ALL or names[0] in printed.DOZEN]
