"""
An image under test: its metadata, and hardened containers of it.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import Facts, Texts
from tests.support.daemon import SidecarProcess

# The number of UIDs for each user in Debian's default /etc/subuid.
ROOTLESS_UIDS = 65_536
HARDENED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=host",
)


@dataclass(frozen=True)
class Image:
    """
    An image in the store of docker or podman.
    """

    tool: str
    name: str

    def inspect(self) -> Facts:
        """
        Return the tool's description of the image.
        """
        described: list[Facts] = json.loads(
            self.run_tool("image", "inspect", self.name)
        )
        return described[0]

    def labels(self) -> Texts:
        """
        Return the OCI labels by the last part of their names (`title`, `base.name`).
        """
        found = self.inspect()["Config"]["Labels"].items()
        return {
            name.removeprefix("org.opencontainers.image."): text for name, text in found
        }

    @property
    def over_base_bytes(self) -> int:
        """
        The size that the image adds to its base, for the benchmarks.
        """
        size: int = (
            self.inspect()["Size"]
            - Image(self.tool, self.labels()["base.name"]).inspect()["Size"]
        )
        return size

    def run(self, *arguments: str, entrypoint: str | None = None) -> str:
        """
        Run a hardened container to its end and return what it wrote to both outputs.

        Raises:
            AssertionError: The exit code is not 0.
        """
        instead = [] if entrypoint is None else [f"--entrypoint={entrypoint}"]
        return self.run_tool(
            "run", "--rm", *instead, *self.hardening("50000:0"), self.name, *arguments
        )

    @property
    def is_rootless(self) -> bool:
        """
        Whether its containers have mapped UIDs, as with podman without root.
        """
        return self.tool == "podman" and os.getuid() != 0

    def owner(self, path: Path) -> tuple[int, int]:
        """
        Return the UID and GID of a file, as containers see them.
        """
        inside = ["podman", "unshare"] if self.is_rootless else []
        said = subprocess.check_output(
            [*inside, "stat", "--format=%u %g", path], text=True
        )
        uid, gid = map(int, said.split())
        return uid, gid

    def hardening(self, user: str) -> list[str]:
        """
        Return the options that match the strictest pod: not even `/tmp` is writable.
        """
        if self.is_rootless and int(user.split(":")[0]) >= ROOTLESS_UIDS:
            pytest.skip(
                f"podman has no UID {user.split(':')[0]} without root: run it as root"
            )
        podman = ["--read-only-tmpfs=false"] if self.tool == "podman" else []
        return [*HARDENED, *podman, f"--user={user}"]

    def run_tool(self, *arguments: str) -> str:
        """
        Run docker or podman and return what it wrote.
        """
        done = subprocess.run(
            [self.tool, "--log-level=error", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert 0 == done.returncode, done.stdout
        return done.stdout


class Container(SidecarProcess):
    """
    A sidecar in a hardened container, with its files mounted at the same paths.

    The tool's client represents the process: it passes on output, signals and the exit
    code.
    """

    def __init__(
        self,
        image: Image,
        environment: Mapping[str, str | None],
        home: Path,
        writable: Sequence[Path],
        readable: Sequence[Path] = (),
        user: str = "50000:0",
        options: Sequence[str] = (),
    ) -> None:
        """
        Describe a container; nothing is started yet.

        Args:
            image: What to run.
            environment: All its variables; `None` omits one.
            home: A folder for the client.
            writable: Folders to mount, made writable for everyone, like an emptyDir.
            readable: Files and folders to mount read-only.
            user: The UID and GID.
            options: More options for `run`.
        """
        super().__init__(Path(image.name), os.environ, home)
        for folder in writable:
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
        self._image = image
        self._name = f"sidecar-{uuid.uuid4().hex}"
        ours = [item for item in environment.items() if item[0] not in ("HOME", "PATH")]
        self.wrapper = (
            *(image.tool, "--log-level=error", "run", "--rm", f"--name={self._name}"),
            *(*image.hardening(user), *options),
            *(f"--volume={folder}:{folder}" for folder in writable),
            *(f"--volume={path}:{path}:ro" for path in readable),
            *(f"--env={name}={value}" for name, value in ours if value is not None),
        )

    def kill(self) -> None:
        """
        Remove the container, running or not.
        """
        self._image.run_tool("rm", "--force", self._name)
        super().kill()

    def complaints(self) -> list[str]:
        """
        Return the warnings, the errors, and the log lines that are not JSON.
        """
        loud = [
            json.dumps(event)
            for event in self.events
            if event.get("level") not in ("debug", "info")
        ]
        return loud + self.stray_lines
