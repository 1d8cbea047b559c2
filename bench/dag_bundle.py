"""
Airflow 3's S3DagBundle as a peer: the real class of the Amazon provider, in a long-lived process.

In Airflow, the bundle is not a separate process: the dag-processor keeps one, and each task creates
one. The measurement therefore covers one call in a process that has already imported Airflow, and
no other work of Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.measure import Cost, during
from tests.support.dialogue import Dialogue, dialogue

CHILD = Path(__file__).with_name("bundle_child.py")
NAME = "S3DagBundle"
START = "S3DagBundle, at the start of a task"


@dataclass(frozen=True)
class Bundle:
    """
    A process with one bundle.

    Args:
        folder: The folder that it syncs with the prefix.
    """

    child: Dialogue
    folder: Path

    def do(self, deed: Literal["initialize", "refresh"]) -> Cost:
        """
        Call a method; return the cost of the call, and the memory of the whole process.

        Raises:
            RuntimeError: The call failed.
        """
        return during(self.child.pid, lambda: self.child.ask(deed))


@contextmanager
def running(
    airflow: Path, storage: Path, bucket: str, prefix: str, environment: Mapping[str, str]
) -> Iterator[Bundle]:
    """
    Run a process with a bundle; call `initialize` first.

    Args:
        airflow: The environment with Airflow 3 and the Amazon provider.
        storage: A folder for its files; the bundle's folder is `bench` in it.
        environment: With the endpoint and the credentials.
    """
    (storage / "bench").mkdir(parents=True, exist_ok=True)
    connection = {
        "conn_type": "aws",
        "login": environment["AWS_ACCESS_KEY_ID"],
        "password": environment["AWS_SECRET_ACCESS_KEY"],
        "extra": {"endpoint_url": environment["AWS_ENDPOINT_URL"]},
    }
    variables = {
        **environment,
        "HOME": str(storage),
        "AIRFLOW_HOME": str(storage / "airflow"),
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(storage),
    }
    program: list[str | Path] = [airflow / "bin" / "python", "-I", CHILD, bucket, prefix]
    with dialogue(program, variables, storage / "log") as child:
        yield Bundle(child, storage / "bench")
