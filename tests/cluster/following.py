"""
Logs of containers that are followed while their pods come and go.
"""

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests import Facts
from tests.cluster.kubectl import Namespace, Pod


class Followed(ExitStack):
    """
    The logs of containers; a `with` statement ends once all containers have ended, so
    enclose the namespace in it.

    Args:
        folder: Where the logs are stored.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.names: list[str] = []

    def follow(self, place: Namespace, pod: Pod, container: str) -> str:
        """
        Follow a container until it ends; return the name of this log.

        After a restart, its new log has another name.
        """
        restarts = pod.statuses[container]["restartCount"]
        name = f"{pod.name} {container} {restarts}"
        if name not in self.names:
            self.names.append(name)
            command = ["kubectl", f"--namespace={place.name}", "logs", "--follow"]
            command += [f"--container={container}", pod.name]
            self.enter_context(
                subprocess.Popen(
                    command, stdout=self.enter_context((self._folder / name).open("wb"))
                )
            )
        return name

    def lines(self, name: str) -> list[Facts]:
        """
        Return the JSON lines of a log.
        """
        return [
            json.loads(line) for line in (self._folder / name).read_text().splitlines()
        ]
