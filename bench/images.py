"""
What is in the image of a sidecar: its packages, and how much larger it is than its
base.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.budgets import Outcome, at_most
from tests import ROOT
from tests.images.container import Image
from tests.support.daemon import VENV_BIN


def install(sidecar: str, folder: Path) -> list[str]:
    """
    Install a sidecar with what its image has, and return its command: each package of a
    peer, or service of botocore, would slow its start down.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = folder / "bin" / "pip"
    lock = ROOT / "requirements" / f"{sidecar}.txt"
    subprocess.run(
        [pip, "install", "--quiet", "--require-hashes", "-r", lock], check=True
    )
    dockerfile = (ROOT / "sidecars" / sidecar / "Dockerfile").read_text()
    services = re.findall(r"! -name (\S+)", dockerfile)
    for data in folder.glob("lib/python*/site-packages/botocore/data/*/"):
        if data.name not in services:
            shutil.rmtree(data)
    sources = f"{ROOT / 'runtime'}\n{ROOT / 'sidecars' / sidecar}\n"
    (next(folder.glob("lib/python*/site-packages")) / "sources.pth").write_text(sources)
    return [str(folder / "bin" / "python"), str(VENV_BIN / sidecar)]


def size_over_base(sidecar: str, most_mb: float) -> Outcome:
    """
    Return the outcome of an image's budget; build the image of this commit, with docker
    or podman.

    Args:
        most_mb: The budget, in millions of bytes, uncompressed.
    """
    measured = None
    because = ""
    try:
        tool = _script("container-tool", "run")
        measured = Image(tool, _script("build-image", sidecar)).over_base_bytes / 1e6
    except (subprocess.SubprocessError, AssertionError, KeyError) as error:
        said = getattr(error, "stderr", None) or str(error) or type(error).__name__
        because = f"The image is not available here: {said.strip().splitlines()[-1]}"
    return at_most("image", "over its base", most_mb, measured, "MB", because)


def _script(name: str, *arguments: str) -> str:
    """
    Run a script of the project; return the last line that it printed.

    Raises:
        subprocess.SubprocessError: The script failed, or did not end in time: a build
            whose base cannot be pulled never ends.
    """
    command: list[str | Path] = [ROOT / "scripts" / name, *arguments]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=600
    )
    return done.stdout.strip().splitlines()[-1]
