"""
Commands of s3-sync in processes that are forked after the imports, one after the other.

Imports take most of the time of a short command; forked, a hundred commands take only
seconds.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import botocore.session
from botocore.retries import standard

from s3_sync.command import run
from sidecar_runtime.app import run_main
from tests.support.dialogue import Dialogue


@dataclass(frozen=True)
class Forked:
    """
    A running command.

    Args:
        folder: The folder for its output.
    """

    pid: int
    folder: Path
    server: Dialogue

    def wait(self) -> int:
        """
        Wait until the command ends; return its exit code, or minus the signal that
        killed it.
        """
        return int(self.server.read())

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()


class ForkServer(Dialogue):
    """
    A process that has imported everything that publishers need.
    """

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.support.s3_sync.forked"])

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> Forked:
        """
        Start a command; the previous one must have ended.

        Args:
            folder: The folder for its output.
        """
        folder.mkdir(parents=True, exist_ok=True)
        order = {
            "arguments": arguments,
            "environment": environment,
            "folder": str(folder),
        }
        return Forked(self.ask(order), folder, self)


def _serve() -> None:
    __import__("s3_sync.publisher.cli")
    _read_models()
    # botocore repeats at once what it would repeat after up to 15 s.
    standard.ExponentialBackoff.delay_amount = lambda self, context: 0  # type: ignore[method-assign]
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _run(**json.loads(line))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _read_models() -> None:
    """
    Load botocore's model of S3 once for all commands, which saves 70 ms of CPU in each.
    """
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    botocore.session.Session().create_client("s3", region_name="us-east-1")


def _run(arguments: list[str], environment: dict[str, str], folder: str) -> NoReturn:
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate((os.devnull, f"{folder}/out", f"{folder}/err")):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        os.dup2(os.open(path, flags), number)
    sys.argv = ["s3-sync", *arguments]
    run_main(run)


if __name__ == "__main__":
    _serve()
