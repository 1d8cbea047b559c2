"""
The images that the pods run: built from this commit, and given to the cluster.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kubectl import kubectl

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BASE_IMAGE = "python:3.13-slim-trixie"


@dataclass(frozen=True)
class Images:
    """
    Where the cluster has the images: `REGISTRY/NAME:TAG`, all of one tag.
    """

    registry: str
    tag: str

    def settings(self) -> tuple[str, ...]:
        """
        Return what a user writes into the values: for our images, and for Airflow's.
        """
        names = ("gitSync", "s3Sync", "kerberos", "syncPerm")
        ours = [f"sidecars.{name}.tag={self.tag}" for name in names]
        airflow = [f"images.airflow.repository={self.registry}/reader"]
        airflow += [f"images.airflow.tag={self.tag}"]
        return (f"sidecars.registry={self.registry}", *ours, *airflow)


def provide(folder: Path) -> Images:
    """
    Build what is not built yet, and let LOAD_IMAGE take it; without that the cluster pulls.

    Args:
        folder: For the archives.
    """
    if registry := os.environ.get("REGISTRY"):
        return Images(registry, _run("scripts/build-image", "--name", "s3-sync").rpartition(":")[2])
    tool = _run("scripts/container-tool", "build")
    tag = _run("scripts/build-image", "--name", "s3-sync").rpartition(":")[2]
    names = "--output=jsonpath={.items[*].status.images[*].names[*]}"
    there = kubectl("get", "nodes", names).split()
    for name in ("git-sync-wrapper", "s3-sync", "kerberos", "sync-perm", "reader"):
        image = f"localhost/{name}:{tag}"
        as_committed = _is_as_committed(name)
        if as_committed and image in there:
            continue
        if not (as_committed and _has(tool, image)):
            _build(tool, name, tag)
        archive = folder / f"{name}.tar"
        _save(tool, image, archive)
        _run(*shlex.split(os.environ["LOAD_IMAGE"]), str(archive))
        archive.unlink()
    return Images("localhost", tag)


def _build(tool: str, name: str, tag: str) -> None:
    image = f"localhost/{name}:{tag}"
    if name != "reader":
        built = _run("scripts/build-image", name, TAG=tag)
        if tool == "docker":  # the others call it so by themselves
            _run(tool, "tag", built, image)
        return
    base = os.environ.get("BASE_IMAGE") or BASE_IMAGE
    file = HERE / "reader.Dockerfile"
    arguments = ("--tag", image, "--file", str(file), "--build-arg", f"BASE_IMAGE={base}")
    _run(tool, "build", *arguments, str(HERE))


def _is_as_committed(name: str) -> bool:
    """
    Whether the tag says what is in the image; it says nothing of the reader.
    """
    if name == "reader":
        return False
    return not _run("scripts/build-image", "--name", name).endswith("-dirty")


def _has(tool: str, image: str) -> bool:
    inspect = ["inspect", "--type", "image", image]
    return subprocess.run([tool, *inspect], capture_output=True).returncode == 0


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
