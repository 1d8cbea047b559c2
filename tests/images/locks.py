"""
Compares the Python packages of an image with its lock.
"""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
WINDOWS_ONLY = {"tzdata"}


def assert_are_locked(sidecar: str, distributions: Iterable[str]) -> None:
    """
    Assert that the packages are exactly the sidecar, the runtime and those of the lock.
    """
    lock = (ROOT / f"requirements/{sidecar}.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE)) - WINDOWS_ONLY
    project = tomllib.loads((ROOT / f"sidecars/{sidecar}/pyproject.toml").read_text())["project"]

    found = {name.lower().replace("_", "-") for name in distributions}

    assert locked | {project["name"], "sidecar-runtime"} == found
