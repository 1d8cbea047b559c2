"""
Every name that a README or a reference page documents, as a set that a machine can
compare.

Settings, metrics, commands and options come from the code, which other tests compare
with the pages; reasons, events, labels, exit codes and fields come from the pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from docs.__main__ import SHARED_REASONS, metrics, shared_metrics
from docs.sidecars import SIDECARS, Documented
from s3_sync.publisher import cli
from sidecar_runtime.settings import specs_of
from tests import ROOT

ANY = "every sidecar"
"""In place of a sidecar: one of them is enough."""
COMMANDS = {
    "git-sync-wrapper": ("check",),
    "kerberos": ("check", "check --consumer"),
    "sync-perm": ("check", "diff"),
}


def names_of(settings: type[object], prefix: str) -> set[str]:
    """
    Return the full names of all variables that a settings class reads.
    """
    return {spec.variable for spec in specs_of(settings, prefix).values()}


class Name(NamedTuple):
    """
    A documented name.

    Args:
        sidecar: Its folder, or :data:`ANY`.
        kind: setting, reason, event, metric, label, exit code, readyz, command, field.
        name: As the page writes it.
    """

    sidecar: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.sidecar}: {self.kind} {self.name}"


def section(text: str, title: str) -> str:
    """
    Return what is below a level-2 heading of a page.
    """
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert match, f"there is no section {title}"
    return match[1]


def first_column(text: str) -> list[str]:
    """
    Return the names in backticks, one or several, in the first column of tables.
    """
    cells = re.findall(r"^\| ((?:`[^`|]+`(?:, )?)+) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def metric_tables() -> str:
    """
    Return the tables of the metrics of all sidecars.
    """
    return "\n".join([shared_metrics(), *map(metrics, SIDECARS)])


def documented() -> set[Name]:
    """
    Return every documented name.
    """
    found = {name for sidecar in SIDECARS for name in _of(sidecar)}
    found |= set(_events())
    found |= {Name(ANY, "reason", reason) for reason in SHARED_REASONS}
    found |= {Name(ANY, "label", label) for label in _labels()}
    found |= {Name("s3-sync", "command", command) for command in _publisher()}
    return found


def _of(sidecar: Documented) -> Iterator[Name]:
    readme = (ROOT / sidecar.readme).read_text()
    for setting in names_of(sidecar.settings, sidecar.prefix):
        yield Name(sidecar.name, "setting", setting)
    for reason in first_column(section(readme, "Failures")):
        yield Name(sidecar.name, "reason", reason)
    for metric in sidecar.metrics().metrics:
        yield Name(sidecar.name, "metric", metric)
    for code in "0123":
        yield Name(sidecar.name, "exit code", code)
    for status in ("200", "503"):
        yield Name(sidecar.name, "readyz", status)
    for command in COMMANDS.get(sidecar.name, ("check",)):
        yield Name(sidecar.name, "command", command)
    for field in fields_of_record(readme):
        yield Name(sidecar.name, "field", field)


def fields_of_record(text: str) -> list[str]:
    """
    Return the fields of ``published.json`` that a contract lists, in one line.
    """
    line = re.search(r"^- `(?:\.snapshots/)?published\.json`(.*)$", text, re.MULTILINE)
    return re.findall(r"`(\w+)`", line[1]) if line else []


def _events() -> Iterator[Name]:
    """
    Return the events of the page, each under the heading of its sidecar.
    """
    page = (ROOT / "docs/reference/events.md").read_text()
    names = {sidecar.name for sidecar in SIDECARS}
    for part in page.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        sidecar = title if title in names else ANY
        for event in first_column(text):
            yield Name(sidecar, "event", event)


def _labels() -> Iterator[str]:
    """
    Return each value of a label that the page of the metrics lists.
    """
    rows = re.findall(
        r"^\| `(\w+)` of `(\w+)` \| (.*) \|$",
        (ROOT / "docs/reference/metrics.md").read_text(),
        re.MULTILINE,
    )
    for label, metric, cell in rows:
        for value in re.findall(r"`(\w+)`", re.sub(r"\([^()]*\)", "", cell)):
            yield f'{metric}{{{label}="{value}"}}'


def _publisher() -> Iterator[str]:
    """
    Return the commands of s3-sync, and each with each of its options.
    """
    for command, (_, arguments) in cli.COMMANDS.items():
        yield command
        options = [word for word in arguments.split() if word.startswith("--")]
        for option in [*options, "--output"]:
            yield f"{command} {option}"
