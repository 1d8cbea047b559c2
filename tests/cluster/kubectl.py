"""
One namespace of a cluster, through the real `kubectl`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.chart.sidecars import Values
from tests.support.waiting import wait_until

T = TypeVar("T")

PATIENCE_SECONDS = 240.0
"""The longest wait for any condition, on a busy machine."""


def kubectl(*arguments: str, given: str | None = None) -> str:
    """
    Run one command and return its output.

    Raises:
        AssertionError: It failed.
    """
    done = subprocess.run(
        ["kubectl", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Pod:
    """
    One pod at the time of the query.
    """

    namespace: Namespace
    manifest: Values

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def uid(self) -> str:
        """
        What no other pod ever has; pods of a StatefulSet follow under one name.
        """
        return str(self.manifest["metadata"]["uid"])

    @property
    def spec(self) -> Values:
        spec: Values = self.manifest["spec"]
        return spec

    @property
    def phase(self) -> str:
        return str(self.manifest["status"]["phase"])

    @property
    def restarts(self) -> int:
        return sum(one["restartCount"] for one in self.statuses.values())

    @property
    def is_ready(self) -> bool:
        return any(
            (one["type"], one["status"]) == ("Ready", "True")
            for one in self.manifest["status"].get("conditions", [])
        )

    @property
    def statuses(self) -> dict[str, Values]:
        """
        The status of each container that has one, including init containers, by name.
        """
        status = self.manifest["status"]
        keys = ("initContainerStatuses", "containerStatuses")
        return {one["name"]: one for key in keys for one in status.get(key, [])}

    def execute(self, container: str, *command: str) -> str:
        """
        Run a command in a container and return its output.
        """
        return self.namespace.run(
            "exec", self.name, f"--container={container}", "--", *command
        )

    def log(self, container: str) -> list[Any]:
        """
        Return the JSON lines of a container's log.
        """
        return [
            json.loads(line)
            for line in self.namespace.run(
                "logs", self.name, f"--container={container}"
            ).splitlines()
            if line.startswith("{")
        ]


@dataclass(frozen=True)
class Namespace:
    """
    A namespace that enforces one PodSecurity level.
    """

    name: str

    def run(self, *arguments: str, given: str | None = None) -> str:
        """
        Run kubectl in the namespace and return its output.
        """
        return kubectl(f"--namespace={self.name}", *arguments, given=given)

    def attempt(self, *arguments: str) -> str:
        """
        Run kubectl in the namespace; return its output, or the error if it fails.
        """
        try:
            return self.run(*arguments)
        except AssertionError as error:
            return str(error)

    def create(self, objects: Sequence[Values]) -> None:
        """
        Create the objects in this order.
        """
        self._send(objects, "create")

    def apply(self, objects: Sequence[Values]) -> None:
        """
        Create the objects, or change those that exist.
        """
        self._send(objects, "apply", "--server-side", "--force-conflicts")

    def _send(self, objects: Sequence[Values], *command: str) -> None:
        self.run(
            *command,
            "--filename=-",
            given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def pods(self, selector: str = "tier=airflow") -> list[Pod]:
        """
        Return the pods that are not being deleted.
        """
        found = json.loads(
            self.run("get", "pods", f"--selector={selector}", "--output=json")
        )
        return [
            Pod(self, one)
            for one in found["items"]
            if "deletionTimestamp" not in one["metadata"]
        ]

    def wait_for_ready(self, number: int, selector: str = "tier=airflow") -> list[Pod]:
        """
        Wait until there are exactly this many pods and all are ready; return them.

        Raises:
            AssertionError: Not in time, or one restarted; describes the pods that are
                not ready.
        """

        def ready() -> list[Pod]:
            found = self.pods(selector)
            assert not any(pod.restarts for pod in found), "one restarts"
            return (
                found
                if len(found) == number and all(one.is_ready for one in found)
                else []
            )

        return self.wait_until(ready, f"{number} pods are ready")

    def wait_until(self, condition: Callable[[], T], what: str) -> T:
        """
        Wait for a condition; return its first true value.

        Raises:
            AssertionError: It was not true in time; describes the pods that are not
                ready.
        """
        try:
            return wait_until(condition, what, PATIENCE_SECONDS, step_seconds=0.5)
        except AssertionError as error:
            warnings = self.attempt(
                "get",
                "events",
                "--field-selector=type=Warning",
                "--output=custom-columns=:.involvedObject.name,:.message",
            )
            pods = self.attempt("get", "pods")
            raise AssertionError(f"{error}\n{pods}\n{warnings}") from None


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """
    Create a namespace that enforces `restricted`, and finally delete it with its
    contents.
    """
    kubectl("create", "namespace", name)
    try:
        kubectl(
            "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"
        )
        yield Namespace(name)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")
