"""
Builds the components of charts-snippets/kustomize on the rendered chart with the real kustomize.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.chart import files
from tests.chart.rendered import start
from tests.chart.rules.sidecars import Values

KUSTOMIZE = shutil.which("kustomize")
HOW_TO_BUILD = "components need kustomize 5.8 or later on PATH: scripts/go-tool kustomize"
PAGE = files.SNIPPETS.parent / "docs/how-to/when-chart-2-removes-kerberos-and-git-sync.md"
# The YAML blocks of the page: values for the chart, and the user's kustomization.
VALUES, KUSTOMIZATION = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
COMPONENTS: tuple[str, ...] = tuple(yaml.safe_load(KUSTOMIZATION)["components"])
# The name that stands for the page's values in a list of values files.
THE_PAGES = "when-chart-2-removes-kerberos-and-git-sync.md"


def is_there() -> bool:
    """
    Whether components can be built; kustomize before 5.8 lacks features that they use.
    """
    if KUSTOMIZE is None:
        return False
    said = subprocess.run([KUSTOMIZE, "version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 8)


def written(folder: Path, rendered: str, components: Sequence[str]) -> Path:
    """
    Write a user's kustomization with these components to a new subfolder, and return it.

    Args:
        folder: The parent; its krb5.conf is used if it has one.
        rendered: The output of `helm template`.
        components: Their paths, as on the page.
    """
    place = folder / "kustomize"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(files.SNIPPETS / "kustomize", place / "kustomize")
    (place / "rendered.yaml").write_text(rendered)
    krb5_conf = folder / "krb5.conf"
    given = krb5_conf.read_bytes() if krb5_conf.exists() else start.content("krb5.conf")
    (place / "krb5.conf").write_bytes(given)
    said = {**yaml.safe_load(KUSTOMIZATION), "components": [*components]}
    del said["namespace"]  # `helm template` has already set one
    (place / "kustomization.yaml").write_text(yaml.safe_dump(said))
    return place


def build(folder: Path) -> tuple[list[Values], str]:
    """
    Run kustomize; return the objects and its error output.
    """
    assert KUSTOMIZE
    done = subprocess.run([KUSTOMIZE, "build", str(folder)], capture_output=True, text=True)
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one], done.stderr
