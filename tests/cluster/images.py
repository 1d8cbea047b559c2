"""
Builds the images of the pods from this commit, and loads them into the cluster.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

HERE = Path(__file__).parent
SUPPORT = ROOT / "tests/support"
S3_SERVER = "VERSITYGW_BIN"
BASE_IMAGE = os.environ.get("BASE_IMAGE") or "python:3.13-slim-trixie"


@dataclass(frozen=True)
class Images:
    """
    The names of the images in the cluster: `REGISTRY/NAME:TAG`, all with one tag.
    """

    registry: str
    tag: str

    def name(self, image: str) -> str:
        """
        Return the full name of an image.
        """
        return f"{self.registry}/{image}:{self.tag}"

    def settings(self) -> tuple[str, ...]:
        """
        Return the settings that a user writes for the image of Airflow; `substitute`
        sets ours.
        """
        return (
            f"images.airflow.repository={self.registry}/reader",
            f"images.airflow.tag={self.tag}",
        )


def provide(folder: Path, names: Sequence[str], tag: str = "") -> Images:
    """
    Build the images and load them with LOAD_IMAGE; with REGISTRY, the cluster pulls
    them.

    Args:
        folder: Where the archives are stored.
        names: The images to provide: sidecars, `airflow`, and those of Dockerfiles
            here.
        tag: The tag of the images; empty = that of this commit.
    """
    tag = tag or _run("scripts/build-image", "--name", "s3-sync").rpartition(":")[2]
    if registry := os.environ.get("REGISTRY"):
        return Images(registry, tag)
    tool = _run("scripts/container-tool", "build")
    for name in names:
        image = f"localhost/{name}:{tag}"
        built = image
        if name == "airflow":
            built = _run("tests/images/airflow-base", "3", BASE_IMAGE)
        elif (file := HERE / f"{name}.Dockerfile").exists():
            _run(
                tool,
                "build",
                "--tag",
                image,
                f"--file={file}",
                f"--build-arg=BASE_IMAGE={BASE_IMAGE}",
                str(
                    SUPPORT if name == "reader" else Path(os.environ[S3_SERVER]).parent
                ),
            )
        else:
            built = _run("scripts/build-image", name, TAG=tag)
        if built != image:
            _run(tool, "tag", built, image)  # docker adds no `localhost/`
        _load(tool, image, folder)
    return Images("localhost", tag)


def _load(tool: str, image: str, folder: Path) -> None:
    archive = folder / "image.tar"
    if tool == "buildah":
        _run(tool, "push", "--quiet", image, f"docker-archive:{archive}:{image}")
    else:
        _run(tool, "save", "--output", str(archive), image)
    _run(*shlex.split(os.environ["LOAD_IMAGE"]), str(archive))
    archive.unlink()


def _run(*command: str, **variables: str) -> str:
    """
    Run a program and return the last line of its output.

    Raises:
        AssertionError: It failed.
    """
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr[-3000:]}"
    return (done.stdout.strip().splitlines() or [""])[-1]
