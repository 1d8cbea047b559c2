"""
The stacks of values files that are rendered and started, and the sidecars of their
pods.
"""

from tests.chart import printed

Kinds = dict[str, dict[str, str]]
Stack = tuple[str, ...]

AS_PODS, AS_CELERY = "executor=KubernetesExecutor", "executor=CeleryExecutor"
_ALL = "KERBEROS=1 SYNC_PERM=1"
# The complete deployments of the how-to.
_DEV = f"make values AIRFLOW=3 EXECUTOR=KubernetesExecutor SOURCE=listing {_ALL}"
_PRD = f"make values AIRFLOW=3 EXECUTOR=KubernetesExecutor SOURCE=release GATE=1 {_ALL}"
DEV: Stack = (_DEV, "values.yaml", "values-dev.yaml")
PRD: Stack = (_PRD, "values.yaml", "values-prd.yaml")
PRD_2: Stack = (
    _PRD.replace("AIRFLOW=3", "AIRFLOW=2"),
    "values.yaml",
    "values-airflow-2.yaml",
    PRD[2],
)
PRD_GIT: Stack = (_PRD.replace("release", "git"), *PRD[1:])
PRD_CELERY: Stack = (_PRD.replace("Kubernetes", "Celery"), *PRD[1:])
WHOLE = (DEV, PRD, PRD_2, PRD_GIT, PRD_CELERY, (*PRD, "examples/fargate.yaml"))
IN_THE_CHART: tuple[Stack, ...] = (
    ("git-sync-wrapper.chart.yaml",),
    (AS_PODS, "git-sync-wrapper.chart.yaml", "git-sync-wrapper.codecommit.yaml"),
)


def _of(words: str, executor: str = "CeleryExecutor") -> Kinds:
    return printed.kinds(
        {**printed.choice(f"make values {words}"), "EXECUTOR": executor}
    )


_LISTING, _GIT, _TICKETS = _of("SOURCE=listing"), _of("SOURCE=git"), _of("KERBEROS=1")
_TOGETHER = ("s3-sync-and-kerberos.yaml", "sync-perm.extra.yaml")
EXPECTED: dict[Stack, Kinds] = {
    **{names: printed.kinds(printed.choice(names[0])) for names in WHOLE},
    ("s3-sync.native.yaml",): _LISTING,
    (AS_PODS, "s3-sync.native.yaml"): _of("SOURCE=listing", "KubernetesExecutor"),
    (AS_CELERY, *_TOGETHER): _of(f"SOURCE=listing {_ALL}"),
    (AS_PODS, *_TOGETHER): _of(f"SOURCE=listing {_ALL}", "KubernetesExecutor"),
    ("kerberos.native.yaml",): _TICKETS,
    (AS_PODS, "kerberos.native.yaml"): _of("KERBEROS=1", "KubernetesExecutor"),
    ("sync-perm.extra.yaml",): _of("SYNC_PERM=1"),
    ("airflowVersion=2.11.2", "sync-perm.extra.yaml"): _of("AIRFLOW=2 SYNC_PERM=1"),
    ("git-sync-wrapper.native.yaml",): _GIT,
    (AS_PODS, "git-sync-wrapper.native.yaml"): _of("SOURCE=git", "KubernetesExecutor"),
    **{names: {} for names in IN_THE_CHART},
    ("examples/git-sync-deployment.yaml", "kerberos.native.yaml"): _TICKETS,
    ("s3-sync.native.yaml", "examples/shared-ticket.yaml"): _LISTING,
    ("quickstart/values.yaml",): {
        "scheduler": {"s3-sync": "native"},
        "dag-processor": {"s3-sync": "native"},
    },
}
DAILY = [*EXPECTED, *((name,) for name in printed.FEW)]
EXPECTED |= {
    (name,): printed.kinds(
        {**choice, "EXECUTOR": choice["EXECUTOR"] or "CeleryExecutor"}
    )
    for name, choice in printed.ALL.items()
}
