"""
The files of charts-snippets that contain a sidecar.

Of `objects/`, only the lines below a comment such as
`# generated: kerberos.container native` are, with its indentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sidecar_values.containers import WRITTEN, GitSync, Kerberos, S3Sync
from sidecar_values.deployment import CHOICES, values
from sidecar_values.yaml_text import lines_of

SOURCE = Path(__file__).parents[1]
SNIPPETS = SOURCE.parent
_GENERATED = re.compile(
    r"^(( *)# generated: (\S+)\.(\w+) ?(\w*)\n)(?:\2.*\n)*", re.MULTILINE
)

PASTED: Mapping[str, Mapping[str, str]] = {
    "s3-sync.native.yaml": {"SOURCE": "listing"},
    "git-sync-wrapper.native.yaml": {"SOURCE": "git"},
    "git-sync-wrapper.chart.yaml": {"SOURCE": "chart-git"},
    "kerberos.native.yaml": {"KERBEROS": "1"},
    "sync-perm.extra.yaml": {"SYNC_PERM": "1"},
    "s3-sync-and-kerberos.yaml": {"SOURCE": "listing", "KERBEROS": "1"},
}
"""Files that need no other one, and the words that print each."""

_PROJECT = {**WRITTEN, "path": "projects/sales"}
_PARTS = {
    "kerberos": Kerberos(WRITTEN),
    "shared-kerberos": Kerberos(WRITTEN, claim="krb5-ccache"),
    "project": S3Sync(_PROJECT, folder="/project", volume="project"),
    "git-sync": GitSync(WRITTEN, claim="git-dags", link="current"),
}


def files() -> dict[Path, str]:
    """
    Return the path and content of every generated file.
    """
    nothing = dict.fromkeys(CHOICES, "")
    found = {
        SNIPPETS / name: values({**nothing, **choice})
        for name, choice in PASTED.items()
    }
    for path in sorted((SNIPPETS / "objects").glob("*.yaml")):
        found[path] = _GENERATED.sub(_part, path.read_text())
    return found


def _part(match: re.Match[str]) -> str:
    comment, indent, name, method, form = match.groups()
    part = getattr(_PARTS[name], method)(*filter(None, [form]))
    lines = lines_of(part if isinstance(part, list) else [part])
    return comment + "".join(f"{indent}{line}\n" for line in lines)
