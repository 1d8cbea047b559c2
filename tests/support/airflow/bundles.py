"""
A process of Airflow with our DAG bundles, created as Airflow creates them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.support.airflow.installed import Airflow
from tests.support.dialogue import Dialogue

CHILD = Path(__file__).with_name("bundle_child.py")
MODULE = ROOT / "airflow-bundle"


class BundleFailed(Exception):
    """
    An exception that a bundle raised: its class name and text.
    """


class Bundles:
    """
    A running process that holds bundles by name.
    """

    def __init__(self, child: Dialogue) -> None:
        self._child = child

    def do(self, what: str, name: str = "dags", **given: Any) -> Any:
        """
        Run a command on the bundle with this name; see `bundle_child.do`.

        Raises:
            BundleFailed: The bundle raised an exception.
        """
        answer = self._child.ask({"do": what, "name": name, **given})
        if "error" in answer:
            raise BundleFailed(answer["error"])
        return answer["value"]

    def initialize(self, **given: Any) -> Path:
        """
        Create a bundle, initialize it, and return its path.
        """
        self.do("new", **given)
        self.do("initialize")
        return Path(self.do("path"))


@contextmanager
def running_bundles(
    airflow: Airflow, home: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Bundles]:
    """
    Run a process with an Airflow's Python and with our module on its path.
    """
    home.mkdir(parents=True, exist_ok=True)
    program: list[str | Path] = [airflow.bin / "python", "-P", CHILD]
    environment = {
        **airflow.environment(None, home),
        "PYTHONPATH": str(MODULE),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "storage"),
        **(settings or {}),
    }
    with (
        (home / "log").open("w") as log,
        Dialogue(program, environment, log) as child,
    ):
        yield Bundles(child)
