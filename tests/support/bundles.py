"""
A process of Airflow that has bundles: the one of ours, as Airflow makes it.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.airflow import ROOT, Airflow

CHILD = Path(__file__).with_name("bundle_child.py")
MODULE = ROOT / "airflow-bundle"


class BundleFailed(Exception):
    """
    What a bundle raised: the name of its class, and its text.
    """


class Bundles:
    """
    A running process with bundles by name.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, what: str, name: str = "dags", **given: Any) -> Any:
        """
        Do something with the bundle of a name; see `bundle_child.do`.

        Raises:
            BundleFailed: It raised something.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, "name": name, **given}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise BundleFailed(answer["error"])
        return answer["value"]

    def initialize(self, **given: Any) -> Path:
        """
        Make a bundle, initialize it, and return its path.
        """
        self.do("new", **given)
        self.do("initialize")
        return Path(self.do("path"))


@contextmanager
def running_bundles(
    airflow: Airflow,
    home: Path,
    settings: Mapping[str, str] | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[Bundles]:
    """
    Run a process of an Airflow that has our module on its path.

    Args:
        wrapper: A program, with its arguments, that runs it.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [*wrapper, airflow.bin / "python", "-P", CHILD],
            env={
                **airflow.environment(None, home),
                "PYTHONPATH": str(MODULE),
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "storage"),
                **(settings or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            yield Bundles(process)
        finally:
            process.kill()
