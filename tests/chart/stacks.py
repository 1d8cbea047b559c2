"""
The stacks of values files that are rendered and started.
"""

from sidecar_values.files import PASTED
from tests.chart import printed

Stack = tuple[str, ...]

AS_PODS = "executor=KubernetesExecutor"
_ALL = "KERBEROS=1 SYNC_PERM=1"
# The complete deployments of the how-to.
_DEV = f"make values AIRFLOW=3 EXECUTOR=KubernetesExecutor SOURCE=listing LAYOUT=snapshot {_ALL}"
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
# As scripts/quickstart has it.
QUICKSTART: Stack = (
    "make values EXECUTOR=LocalExecutor SOURCE=release ENDPOINT=1 VERSIONS=1",
    "quickstart/values.yaml",
)
_TOGETHER = ("s3-sync-and-kerberos.yaml", "sync-perm.extra.yaml")
DAILY: list[Stack] = [
    *WHOLE,
    QUICKSTART,
    *((name,) for name in PASTED),
    (AS_PODS, "s3-sync.native.yaml"),
    (AS_PODS, *_TOGETHER),
    (AS_PODS, "kerberos.native.yaml"),
    ("airflowVersion=2.11.2", "sync-perm.extra.yaml"),
    (AS_PODS, "git-sync-wrapper.native.yaml"),
    (AS_PODS, "git-sync-wrapper.chart.yaml", "git-sync-wrapper.codecommit.yaml"),
    ("examples/git-sync-deployment.yaml", "kerberos.native.yaml"),
    ("s3-sync.native.yaml", "examples/shared-ticket.yaml"),
    ("make values EXECUTOR=KubernetesExecutor SOURCE=listing LAYOUT=snapshot",),
    *((name,) for name in printed.FEW),
]


def asked(stack: Stack) -> printed.Choice:
    """
    Return the words that print a stack: those of its command and its files to paste,
    and of its settings.
    """
    found = {**printed.choice("make values")}
    for name in stack:
        if name.startswith("make values"):
            found |= printed.choice(name)
        elif name.startswith("executor="):
            found["EXECUTOR"] = name.removeprefix("executor=")
        elif name.startswith("airflowVersion=2"):
            found["AIRFLOW"] = "2"
        found |= PASTED.get(name, {})
    return found
