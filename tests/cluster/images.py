"""
Builds the images of the pods from this commit, and loads them into the cluster.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kubectl import kubectl

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BASE_IMAGE = "python:3.13-slim-trixie"
OFFICIAL = "apache/airflow:3.3.2"
S3_SERVER = "VERSITYGW_BIN"


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
        Return the settings that a user writes for the images of the sidecars and of Airflow.
        """
        names = ("gitSync", "s3Sync", "kerberos", "syncPerm")
        ours = [f"sidecars.{name}.tag={self.tag}" for name in names]
        airflow = [f"images.airflow.repository={self.registry}/reader"]
        airflow += [f"images.airflow.tag={self.tag}"]
        return (f"sidecars.registry={self.registry}", *ours, *airflow)


def provide(folder: Path, names: Sequence[str]) -> Images:
    """
    Build missing images and load them with LOAD_IMAGE; with REGISTRY, the cluster pulls them.

    Args:
        folder: Where the archives are stored.
        names: The images to provide.
    """
    tag = _run("scripts/build-image", "--name", "s3-sync").rpartition(":")[2]
    if registry := os.environ.get("REGISTRY"):
        return Images(registry, tag)
    tool = _run("scripts/container-tool", "build")
    there = _in_the_cluster()
    for name in names:
        image = f"localhost/{name}:{tag}"
        as_committed = _is_as_committed(name)
        if as_committed and image in there:
            continue
        if not (as_committed and _has(tool, image)):
            _build(tool, name, tag)
        _load(tool, image, folder)
    return Images("localhost", tag)


def provide_airflow(folder: Path) -> str:
    """
    Build a real Airflow 3 if it is missing, load it with LOAD_IMAGE, and return its name.

    With REGISTRY, the cluster pulls the official image.
    """
    if os.environ.get("REGISTRY"):  # make exports an empty variable
        return OFFICIAL
    image = _run("tests/images/airflow-base", "3", _base())
    if image not in _in_the_cluster():
        _load(_run("scripts/container-tool", "build"), image, folder)
    return image


def provide_s3_server(folder: Path) -> str | None:
    """
    Build an image of the S3 server in VERSITYGW_BIN, load it with LOAD_IMAGE, and return its name.

    Return None if the cluster pulls the official image.
    """
    program = os.environ.get(S3_SERVER)
    if program is None or os.environ.get("REGISTRY"):
        return None
    tool = _run("scripts/container-tool", "build")
    image = "localhost/versitygw:tests"
    _build_here(tool, image, "s3.Dockerfile", Path(program).parent)
    _load(tool, image, folder)
    return image


def _base() -> str:
    return os.environ.get("BASE_IMAGE") or BASE_IMAGE


def _in_the_cluster() -> list[str]:
    return kubectl(
        "get", "nodes", "--output=jsonpath={.items[*].status.images[*].names[*]}"
    ).split()


def _build(tool: str, name: str, tag: str) -> None:
    image = f"localhost/{name}:{tag}"
    if name != "reader":
        built = _run("scripts/build-image", name, TAG=tag)
        if tool == "docker":  # podman and buildah add `localhost/` themselves
            _run(tool, "tag", built, image)
        return
    _build_here(tool, image, "reader.Dockerfile", HERE)


def _build_here(tool: str, image: str, file: str, context: Path) -> None:
    arguments = ("--tag", image, "--file", str(HERE / file), "--build-arg", f"BASE_IMAGE={_base()}")
    _run(tool, "build", *arguments, str(context))


def _is_as_committed(name: str) -> bool:
    """
    Whether the tag identifies the content of the image; for the reader it never does.
    """
    if name == "reader":
        return False
    return not _run("scripts/build-image", "--name", name).endswith("-dirty")


def _has(tool: str, image: str) -> bool:
    inspect = ["inspect", "--type", "image", image]
    return subprocess.run([tool, *inspect], capture_output=True).returncode == 0


def _load(tool: str, image: str, folder: Path) -> None:
    archive = folder / "image.tar"
    _save(tool, image, archive)
    _run(*shlex.split(os.environ["LOAD_IMAGE"]), str(archive))
    archive.unlink()


def _save(tool: str, image: str, archive: Path) -> None:
    match tool:
        case "docker":
            _run(tool, "save", "--output", str(archive), image)
        case "podman":
            _run(tool, "save", "--quiet", "--output", str(archive), image)
        case _:
            _run(tool, "push", "--quiet", image, f"docker-archive:{archive}:{image}")


def _run(*command: str, **variables: str) -> str:
    """
    Run a program and return the last line of its output.

    Raises:
        AssertionError: It failed.
    """
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr[-3000:]}"
    return (done.stdout.strip().splitlines() or [""])[-1]
