"""
Publishers for tests: the real command as a process, and checks of a bucket's content.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from s3_sync.release.format import MANIFEST_FOLDER, MANIFEST_SUFFIX, POINTER_KEY
from tests import Bodies
from tests.s3_sync.release import independent
from tests.support.daemon import S3_SYNC, VENV_BIN, Server
from tests.support.forks import Command
from tests.support.ledger.seen import Witness

PREFIX = "dags/"
EXAMPLES_PREFIX = "dags-releases/"
"""The prefix of releases in charts-snippets and the how-tos."""
GITHUB = {
    "GITHUB_SHA": "1" * 40,
    "GITHUB_REF_NAME": "main",
    "GITHUB_ACTOR": "ada",
    "GITHUB_SERVER_URL": "https://github.example.com",
    "GITHUB_REPOSITORY": "team/dags",
    "GITHUB_RUN_ID": "7",
}
"""The environment of a GitHub job."""


@dataclass(frozen=True)
class Ran:
    """
    A finished command: its exit code and output.
    """

    code: int
    out: str
    err: str

    def facts(self) -> Any:
        """
        Return the parsed output of `--output json`.
        """
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


class Publishing:
    """
    The command line of a user who publishes to a bucket.

    Args:
        home: The user's; the folder that is published is beside it.
        settings: More variables.
    """

    def __init__(
        self,
        server: Server,
        bucket: str,
        home: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"s3://{bucket}/{PREFIX}"
        self.dags = home.with_name(f"{home.name}-dags")
        self._home = home
        self.environment = {
            "PATH": f"{VENV_BIN}:/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
            "AWS_BUCKET": bucket,
            "KEY_PATH": PREFIX,
            **server.environment(),
            **(settings or {}),
        }

    def run(
        self, *arguments: str | Path, program: Path = S3_SYNC, **streams: int | IO[Any]
    ) -> Ran:
        """
        Run a command until it ends.

        Args:
            program: The program that runs it, for example as another user.
            streams: `stdout` and `stderr`, if they are not captured.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        words = [str(argument) for argument in arguments]
        witness = Witness(program)
        witness.command(words, self.environment)
        if streams:
            pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            ended = subprocess.run(
                [program, *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=120,
                **(pipes | streams),
            )
            ran = Ran(ended.returncode, ended.stdout, ended.stderr)
        else:
            command = self.begin(words, program)
            ran = Ran(command.wait(), command.out, command.err)
        witness.output(f"{ran.out}\n{ran.err}")
        witness.end(ran.code)
        return ran

    def begin(self, words: Sequence[str], program: Path = S3_SYNC) -> Command:
        """
        Start a command.
        """
        return Command([str(program), *words], self.environment)

    def told(self, *arguments: str | Path) -> Ran:
        """
        Run a command; its answer is JSON.
        """
        return self.run(*arguments, "--output", "json")

    def succeed(self, *arguments: str | Path) -> Any:
        """
        Run a command that must succeed; return its parsed output.
        """
        ran = self.told(*arguments)
        assert ran.code == 0, ran
        return ran.facts()

    def fails(self, reason: str, *arguments: str | Path, code: int = 3) -> Ran:
        """
        Run a command that must fail for this reason.
        """
        ran = self.told(*arguments)
        assert (code, reason) == (ran.code, ran.facts()["reason"]), ran
        return ran


class Publisher(Publishing):
    """
    Publishes the files that it is given.
    """

    def publish(self, files: Mapping[str, bytes], *more: str | Path) -> Any:
        """
        Publish a folder with these files; return the facts.
        """
        return self.succeed("publish", write_files(self.dags, files), *more)

    def refuses(
        self, reason: str, files: Mapping[str, bytes], *more: str, code: int = 3
    ) -> Ran:
        """
        Fail to publish these files.
        """
        return self.fails(
            reason, "publish", write_files(self.dags, files), *more, code=code
        )


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """
    Create a folder with exactly these files.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def read_release(objects: Mapping[str, bytes]) -> Bodies:
    """
    Return the files of the current release, read and verified as the reference
    describes.

    Args:
        objects: The objects of the bucket, by full key.

    Raises:
        AssertionError, KeyError: The release is incomplete.
    """
    return {
        path: body
        for path, (body, _) in independent.read(
            {key.removeprefix(PREFIX): body for key, body in objects.items()}
        )[1].items()
    }


def check_every_release(objects: Mapping[str, bytes]) -> None:
    """
    Assert that the current release and every release with a manifest are complete.
    """
    for key in objects:
        if key.startswith(PREFIX + MANIFEST_FOLDER):
            name = key.removeprefix(PREFIX + MANIFEST_FOLDER).removesuffix(
                MANIFEST_SUFFIX
            )
            read_release(
                {
                    **objects,
                    PREFIX + POINTER_KEY: json.dumps({"version": name}).encode(),
                }
            )
    if PREFIX + POINTER_KEY in objects:
        read_release(objects)
