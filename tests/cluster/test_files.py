"""
Every values file, the components of Kustomize and the published example start.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.chart import files, test_old_chart
from tests.chart.rendered import kustomize
from tests.chart.rendered.rendering import OLD_CHART
from tests.chart.rendered.stacks import AS_PODS, BUILT, EXPECTED
from tests.chart.rules import checks, pods
from tests.cluster.conftest import SERVICE
from tests.cluster.kubectl import PATIENCE_SECONDS, Pod
from tests.cluster.stack import PRINCIPAL, REALM, Stack, World, seen_by, stack
from tests.cluster.substitutions import ROLE

YOUR_VALUES = str(Path(__file__).with_name("your-values.yaml"))
RELEASES = ("s3-sync.release.yaml", "s3-sync.signed.yaml", "s3-sync.versions.yaml")
# The stacks that are started, of all that are rendered. `test_pods.py` starts values.yaml with
# values-dev.yaml or values-prd.yaml alone.
STARTED: tuple[tuple[str, ...], ...] = (
    ("s3-sync.extra.yaml",),
    ("s3-sync.snapshot.yaml",),
    (AS_PODS, "s3-sync.native.yaml", "s3-sync.init.yaml"),
    (AS_PODS, "s3-sync.release.yaml"),
    ("s3-sync.signed.yaml",),
    (AS_PODS, "s3-sync.versions.yaml"),
    ("kerberos.extra.yaml",),
    ("kerberos.native.yaml",),
    (AS_PODS, "kerberos.init.yaml"),
    ("sync-perm.extra.yaml",),
    ("git-sync-wrapper.chart.yaml",),
    ("git-sync-wrapper.extra.yaml",),
    (AS_PODS, "git-sync-wrapper.native.yaml", "git-sync-wrapper.init.yaml"),
    (AS_PODS, "git-sync-wrapper.versions.yaml"),
    ("values.yaml", "values-airflow-2.yaml", "values-dev.yaml"),
    ("values.yaml", "values-git-sync.yaml", "values-prd.yaml"),
    ("values.yaml", "values-prd.yaml", "examples/fargate.yaml"),
    *BUILT,
)
# These files need an EFS claim or CodeCommit, or test_quickstart.py starts them.
ELSEWHERE = {
    "examples/git-sync-deployment.yaml",
    "examples/shared-ticket.yaml",
    "git-sync-wrapper.codecommit.yaml",
    "quickstart/values.yaml",
}


def test_every_values_file_is_started_or_listed_as_an_exception() -> None:
    started = {name for names in STARTED for name in names}

    assert {*files.FILES} == started & {*files.FILES} | ELSEWHERE


@pytest.mark.parametrize("names", STARTED, ids=" ".join)
def test_pods_become_ready_with_their_sidecars_dags_and_tickets(
    names: tuple[str, ...], outside: dict[bool, World], run: str
) -> None:
    if names in BUILT and not kustomize.is_there():
        pytest.skip(kustomize.HOW_TO_BUILD)
    world = outside[bool({*names} & {*RELEASES})]
    users = () if files.WHOLE in names else (YOUR_VALUES,)
    # Each Fargate pod requests a node of its own, and the one node here has room for one.
    only = frozenset({"dag-processor"}) if "examples/fargate.yaml" in names else None
    name = f"files-{STARTED.index(names)}-{run}"
    with stack(world, name, (*users, *names), only) as place:
        found = place.pods()
        kinds = {name: pods.kinds(some[0].spec) for name, some in found.items()}
        expected = {
            one: some for one, some in EXPECTED[names].items() if only is None or one in only
        }
        assert expected == {one: some for one, some in kinds.items() if some}
        _see_dags(place)
        for some in found.values():
            _see_tickets(some)
        _verify(place, names)
        place.pods()  # no pod has restarted since


@pytest.mark.parametrize("version", ["1.13.1", "1.22.0"])
def test_corrected_published_example_starts(
    version: str, outside: dict[bool, World], run: str, tmp_path: Path
) -> None:
    """
    The page's correction is minimal and does not meet the level `restricted`. The service account
    has the role, because nodes have none here.
    """
    values, role = tmp_path / "values.yaml", tmp_path / "role.yaml"
    values.write_text(test_old_chart.CORRECTED)
    arn = "arn:aws:iam::111122223333:role/airflow-s3-sync"
    account = {"serviceAccount": {"annotations": {ROLE: arn}}}
    role.write_text(json.dumps({"scheduler": account}))
    chart = {"1.13.1": OLD_CHART, "1.22.0": checks.CHART}[version]
    if not chart.is_dir():
        pytest.skip("OLD_AIRFLOW_CHART names no folder with chart 1.13.1")
    names = (test_old_chart.AIRFLOW_2, str(values), str(role))
    name = f"published-{version.replace('.', '-')}-{run}"
    with stack(outside[False], name, names, chart=chart, level="baseline") as place:
        assert {"scheduler", "webserver"} == place.pods().keys()
        _see_dags(place)
        place.pods()  # no pod has restarted since


def _see_dags(place: Stack) -> None:
    consumers = place.consumers()

    def all_see() -> bool:
        return all(seen_by(*one).startswith('{"revision": ') for one in consumers)

    assert place.namespace.wait_until(all_see, "every pod sees DAGs")


def _see_tickets(some: list[Pod]) -> None:
    for pod in some:
        if "kerberos" in pods.kinds(pod.spec):
            airflow = pod.spec["containers"][0]["name"]

            def has_one(pod: Pod = pod, airflow: str = airflow) -> bool:
                said = pod.namespace.attempt(
                    "exec", pod.name, f"--container={airflow}", "--", "kvno", SERVICE
                )
                return said.startswith(f"{SERVICE}@{REALM}: kvno = ")

            assert pod.namespace.wait_until(has_one, f"{pod.name} has a ticket")
            assert f"{PRINCIPAL}@{REALM}" in pod.execute(airflow, "klist")


def _verify(place: Stack, names: tuple[str, ...]) -> None:
    """
    Wait for the resources in each STATUS.yaml, as the chart does for its own overlays.
    """
    for name in names:
        status = files.SNIPPETS / name / "STATUS.yaml"
        if name in kustomize.COMPONENTS and status.is_file():
            verify = yaml.safe_load(status.read_text())["verify"]
            for one in verify["resources"]:
                kind, resource = one["kind"], f"airflow-{one['name']}"
                if (kind, resource) == ("StatefulSet", "airflow-triggerer"):
                    kind = "Deployment"  # because your-values.yaml disables claims
                if one.get("ready"):
                    timeout = f"--timeout={PATIENCE_SECONDS}s"
                    place.namespace.run("rollout", "status", f"{kind}/{resource}", timeout)
                else:
                    place.namespace.run("get", kind, resource)
