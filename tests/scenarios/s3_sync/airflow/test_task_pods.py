"""
The scheduler and its tasks use one release: the pod_mutation_hook in the
KubernetesExecutor.

Airflow, its executor and its Kubernetes client are real; only the API server is a fake.
"""

import json
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests import Facts
from tests.chart.files import SNIPPETS, load
from tests.chart.kubernetes import strict_complaints
from tests.support.airflow.installed import Airflow
from tests.support.aws.fake_s3 import FakeS3
from tests.support.http.loopback import Answer, LoopbackServer, Request
from tests.support.s3_sync.scripted import record_of
from tests.support.s3_sync.shelf import Shelf, release_daemon

HOOK = SNIPPETS / "airflow_local_settings.py"
CREATE = Path(__file__).parents[3] / "support/airflow/task_pods.py"
REVISION = "0123456789abcdef" * 4
PUBLISHED = {
    "revision": REVISION,
    "source": "s3://my-airflow-bucket/dags-releases/",
    "kind": "release",
}
ACCESS_POINT = "arn:aws:s3:eu-central-1:111122223333:accesspoint/dags"

COMMIT = "0123456789" * 4
COMMITTED = {
    "revision": COMMIT,
    "repo": "https://git.example.com/data-team/dags.git",
    "ref": "main",
}

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: "%s"}}]
users: [{name: test, user: {}}]
"""

Pod = Facts


class KubernetesApi(LoopbackServer):
    """An API server that accepts every pod unchanged."""

    def good_answer(self, request: Request) -> Answer:
        return Answer(201, {"Content-Type": "application/json"}, request.body)

    @property
    def pods(self) -> list[Pod]:
        return [
            json.loads(request.body)
            for request in self.seen(lambda r: r.method == "POST")
        ]


class Given(NamedTuple):
    """
    A task to start: the scheduler's published release, and the pod template.

    Args:
        published: The content of published.json; None: no file.
        settings: Variables of the template's s3-sync that differ; None removes a
            variable.
        name: The name of the template's init container.
        of_maps: Variables whose values come from a ConfigMap.
    """

    published: str | None = json.dumps(PUBLISHED)
    settings: Mapping[str, str | None] = {}
    name: str = "s3-sync"
    snippet: str = "make values EXECUTOR=KubernetesExecutor SOURCE=release"
    record: str = "dags/.s3-sync/published.json"
    of_maps: Collection[str] = ()

    def template(self) -> Pod:
        """Return the pod template that the chart renders from `workers.kubernetes`."""
        values = load(self.snippet)["workers"]["kubernetes"]
        (container,) = values["extraInitContainers"]
        container["name"] = self.name
        variables = {one["name"]: one["value"] for one in container["env"]}
        variables |= self.settings
        container["env"] = [
            {
                "name": name,
                "valueFrom": {"configMapKeyRef": {"name": "dags", "key": name}},
            }
            if name in self.of_maps
            else {"name": name, "value": value}
            for name, value in variables.items()
            if value is not None
        ]
        base = {
            "name": "base",
            "image": "apache/airflow:3.3.2",
            "volumeMounts": values.get("extraVolumeMounts", []),
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "placeholder-name"},
            "spec": {
                "initContainers": [container],
                "containers": [base],
                "volumes": values["extraVolumes"],
                "restartPolicy": "Never",
            },
        }


def create(version: str, folder: Path, cases: list[Given]) -> tuple[list[Pod], str]:
    """
    Let the KubernetesExecutor start tasks; return their pods and the executor's log.
    """
    airflow = Airflow.install_or_skip(version)  # type: ignore[arg-type]
    settings = folder / "airflow/config/airflow_local_settings.py"
    settings.parent.mkdir(parents=True)
    settings.write_text(HOOK.read_text())
    wanted = []
    for number, given in enumerate(cases):
        template = folder / f"template{number}.yaml"
        template.write_text(yaml.safe_dump(given.template()))
        record = folder / given.record
        record.parent.mkdir(parents=True, exist_ok=True)
        wanted.append(
            {"template": str(template), "files": {str(record): given.published}}
        )
    with KubernetesApi() as api:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG % api.endpoint)
        done = subprocess.run(
            [airflow.bin / "python", "-P", CREATE],
            env={
                **airflow.environment(None, folder),
                "PYTHONPATH": "",
                "DEST_PATH": str(folder / "dags"),
                "GITSYNC_ROOT": str(folder / "git"),
                "KUBECONFIG": str(kubeconfig),
            },
            input=json.dumps(wanted),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return (api.pods, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))


def of_commits(**differing: Any) -> Given:
    """Return a task whose pod uses git-sync-wrapper."""
    return Given(
        json.dumps(COMMITTED),
        name="git-sync-wrapper",
        snippet="make values EXECUTOR=KubernetesExecutor SOURCE=git",
        record="git/.snapshots/published.json",
        **differing,
    )


OF_POINT = json.dumps(PUBLISHED | {"source": f"s3://{ACCESS_POINT}/dags-releases/"})
BLANKS = {"AWS_BUCKET": " my-airflow-bucket ", "KEY_PATH": " /dags-releases/ "}
# Pods that the hook pins to the scheduler's release or commit.
PINNED = {
    "release": Given(),
    "access point": Given(
        OF_POINT, {"AWS_BUCKET": ACCESS_POINT}, of_maps=("KEY_PATH",)
    ),
    "slashes and blanks": Given(settings={**BLANKS, "S3_SYNC_SOURCE": "Release "}),
    "commit": of_commits(),
    "commit of a URL with a login": of_commits(
        settings={"GITSYNC_REPO": "https://me:token@git.example.com/data-team/dags.git"}
    ),
}
# Pods that it skips, and the message in the log, if there is one.
LEFT = {
    "nothing published": (Given(None), "nothing is published in"),
    "a listing": (
        Given(json.dumps(PUBLISHED | {"kind": "listing"})),
        "does not publish a release",
    ),
    "deep nesting": (Given("[" * 100_000), "RecursionError"),
    "another prefix": (
        Given(settings={"KEY_PATH": "team-b/dags"}),
        "it reads s3://my-airflow-bucket/team-b/dags, but the scheduler reads s3://my-airflow-",
    ),
    "another bucket, and a prefix from a ConfigMap": (
        Given(settings={"AWS_BUCKET": "other"}, of_maps=("KEY_PATH",)),
        "it reads s3://other, but the scheduler reads",
    ),
    "a task pod that lists": (
        Given(settings={"S3_SYNC_SOURCE": None}),
        "S3_SYNC_SOURCE of its init container s3-sync is not release",
    ),
    "pinned by its template": (Given(settings={"S3_SYNC_REVISION": "by hand"}), ""),
    "pinned by a ConfigMap": (
        Given(settings={"S3_SYNC_REVISION": ""}, of_maps=("S3_SYNC_REVISION",)),
        "",
    ),
    "another init container": (Given(name="wait-for-database"), ""),
    "no branch": (
        of_commits(settings={"GITSYNC_REF": None}),
        "its env has no GITSYNC_REF",
    ),
    "another branch": (
        of_commits(settings={"GITSYNC_REF": "dev"}),
        "it reads dev of https://git.example.com/data-team/dags.git, but the scheduler main",
    ),
    "a commit by its template": (of_commits(settings={"GITSYNC_REF": "f" * 40}), ""),
}


@pytest.fixture(scope="module", params=["2.11", "3"])
def created(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Facts:
    """The pods of all cases, created in one process of Airflow."""
    if request.param != "2.11" and not request.config.getoption("--full"):
        pytest.skip("other versions of Airflow run with make test-full")
    cases = PINNED | {name: given for name, (given, _) in LEFT.items()}
    pods, log = create(
        request.param, tmp_path_factory.mktemp("tasks"), list(cases.values())
    )
    assert len(cases) == len(pods), log
    return {"pods": dict(zip(cases, pods, strict=True)), "log": log, "cases": cases}


def test_the_hook_reads_what_s3_sync_writes(s3: FakeS3, tmp_path: Path) -> None:
    release = Shelf(s3).publish({"sales.py": b"the release of the scheduler"})
    with release_daemon(s3, tmp_path / "dags") as scheduler:
        record = record_of(scheduler.until_synced())

    assert {
        **PUBLISHED,
        "revision": release.revision,
        "source": f"s3://{s3.bucket}/dags/",
    } == {name: record[name] for name in PUBLISHED}


@pytest.mark.parametrize("name", PINNED)
def test_hook_pins_what_the_scheduler_has_and_changes_nothing_else(
    created: Facts, name: str
) -> None:
    pod = created["pods"][name]
    given = created["cases"][name].template()
    variable = "S3_SYNC_REVISION"
    revision = REVISION
    if name.startswith("commit"):
        variable = "GITSYNC_REF"
        revision = COMMIT

    before = environment_of(given)
    after = environment_of(pod)

    assert {"name": variable, "value": revision} == after.pop(variable)
    before.pop(variable, None)
    assert before == after
    assert given["spec"]["volumes"] == pod["spec"]["volumes"]
    assert [] == strict_complaints(pod)


def environment_of(pod: Pod) -> Pod:
    (container,) = pod["spec"]["initContainers"]
    return {one["name"]: one for one in container["env"]}


@pytest.mark.parametrize("name", LEFT)
def test_hook_skips_an_unmatched_pod_and_logs_the_reason(
    created: Facts, name: str
) -> None:
    given, reason = LEFT[name]

    assert (
        given.template()["spec"]["initContainers"]
        == (created["pods"][name]["spec"]["initContainers"])
    )
    assert reason in created["log"]
