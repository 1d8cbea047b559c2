"""
The tutorials: every step that needs no cluster.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config

from tests import ROOT
from tests.chart import files
from tests.chart.sidecars import environment
from tests.support.aws.servers import MotoServer
from tests.support.daemon import S3_SYNC, VENV_BIN, SidecarProcess
from tests.support.waiting import wait_until

TUTORIAL = (ROOT / "docs/tutorial/from-an-empty-registry.md").read_text()
BUCKET = "my-airflow-dags"
CLUSTER = "my-cluster"
# Commands that need a cluster or build an image (tests/images covers images).
ELSEWHERE = ("make ", "helm ", "kubectl ")


def steps() -> list[str]:
    """
    Return the scripts in their order.
    """
    blocks = re.findall(r"```console\n(.*?)```", TUTORIAL, re.DOTALL)
    lines = [
        [line for line in block.splitlines() if not line.startswith(ELSEWHERE)]
        for block in blocks
    ]
    return ["\n".join(kept) + "\n" for kept in lines if kept]


class Machine:
    """
    The reader's shell: its variables remain set for the next step.
    """

    def __init__(self, moto: MotoServer, folder: Path) -> None:
        shutil.copytree(ROOT / "charts-snippets", folder / "charts-snippets")
        self._folder = folder
        self._variables = {
            **moto.environment(),
            "PATH": f"{VENV_BIN}:/usr/bin:/bin",
            "HOME": str(folder),
            "AWS_MAX_ATTEMPTS": "1",
        }

    def run(self, script: str) -> None:
        """
        Run the commands of one step.
        """
        done = subprocess.run(
            ["bash", "-aeuo", "pipefail", "-c", f"{script}\nenv -0 >.environment"],
            cwd=self._folder,
            env=self._variables,
            capture_output=True,
            text=True,
        )
        assert 0 == done.returncode, f"{script}\n{done.stdout}{done.stderr}"
        pairs = (self._folder / ".environment").read_text().split("\0")[:-1]
        self._variables = dict(pair.split("=", 1) for pair in pairs)


@pytest.fixture
def account(moto: MotoServer) -> Iterator[Any]:
    """
    A function that returns clients of an AWS account with a cluster.
    """

    def client(service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]
            service,
            region_name="eu-central-1",
            endpoint_url=moto.endpoint,
            aws_access_key_id=moto.access_key,
            aws_secret_access_key=moto.secret_key,
            config=Config(proxies={}, retries={"max_attempts": 1}),
        )

    client("eks").create_cluster(
        name=CLUSTER,
        roleArn="arn:aws:iam::123456789012:role/eks",
        resourcesVpcConfig={},
    )
    yield client
    client("eks").delete_cluster(name=CLUSTER)


def test_its_values_and_its_role_deliver_the_dag_and_its_change(
    account: Any, moto: MotoServer, tmp_path: Path
) -> None:
    machine = Machine(moto, tmp_path)
    *first, change, clean_up = steps()
    for step in first:
        machine.run(step)

    iam = account("iam")
    policy = iam.get_role_policy(RoleName="airflow-s3-sync", PolicyName="s3-sync")
    assert (
        json.loads(files.text("iam/s3-sync.json").replace("my-airflow-bucket", BUCKET))
        == policy["PolicyDocument"]
    )
    assert "EXAMPLE" not in str(iam.get_role(RoleName="airflow-s3-sync"))
    values = files.filled(yaml.safe_load((tmp_path / "build/s3-sync.yaml").read_text()))
    (container,) = values["dagProcessor"]["extraInitContainers"]
    assert (
        "123456789012.dkr.ecr.eu-central-1.amazonaws.com/s3-sync:0.3.0"
        == container["image"]
    )
    dags = tmp_path / "dags"
    given = {
        **moto.environment(),
        **environment(container),
        "DEST_PATH": str(dags),
        "INTERVAL": "0.2",
        "S3_SYNC_HTTP_BIND": "127.0.0.1:0",
    }
    with SidecarProcess(S3_SYNC, given, tmp_path / "home"):
        hello = dags / "hello.py"
        wait_until(hello.exists, "the DAG is there", 60)
        compile(hello.read_text(), "hello.py", "exec")
        machine.run(change)
        wait_until(
            lambda: "hello again" in hello.read_text(), "the change is there", 60
        )

    machine.run(clean_up.replace("aws ecr", "true aws ecr"))  # no image was pushed
    assert BUCKET not in str(account("s3").list_buckets()["Buckets"])
    assert "airflow-s3-sync" not in str(iam.list_roles()["Roles"])
