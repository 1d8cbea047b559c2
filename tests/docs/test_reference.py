"""
Documentation and code name the same settings, metrics, events, reasons and exit codes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from docs.__main__ import FILES, ROOT, generated, metrics
from docs.sidecars import SIDECARS, Documented
from git_sync_wrapper.reasons import REASONS as GIT_REASONS
from kerberos_sidecar.due import Cause
from kerberos_sidecar.reasons import REASONS
from s3_sync.metrics import OPERATIONS, SKIP_REASONS
from s3_sync.publisher.cli import SIGN_KEY
from s3_sync.reasons import REASONS as S3_SYNC_REASONS
from sidecar_runtime import errors
from sidecar_runtime.aws.credentials import ADVICE
from sidecar_runtime.health import Health, Result
from sidecar_runtime.http.status import status
from sidecar_runtime.settings import names_of
from sync_perm.compare import KINDS
from sync_perm.reasons import REASONS as PERM_REASONS
from sync_perm.status import REASONS as PASS_REASONS
from tests.docs import code
from tests.runtime.sidecars import ABOUT, READY

DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]
    if ".venv" not in path.parts and "dag_folder" not in path.parts
)
# Names that the documents mention as wrong, foreign, or of commands only.
EXAMPLES_OF_WRONG_NAMES = {
    "S3_SYNC_BUCKET",
    "S3_SYNC_LAYUOT",
    "S3_SYNC_PORT",
    "S3_SYNC_SERVICE_HOST",
    "S3_SYNC_SIGN_KEY",  # of the publisher's commands
}
# Reasons that the code reads from tables: parsing the calls does not find them.
REASONS_IN_TABLES: dict[str, set[str]] = {
    "git-sync-wrapper": {*GIT_REASONS, *ADVICE, "gate_undecided"},
    "kerberos": {*REASONS},
    "s3-sync": {*S3_SYNC_REASONS},
    "sync-perm": set(PERM_REASONS),
}

SECTIONS = [
    "Contract",
    "Values",
    "Settings",
    "Commands",
    "Probes, metrics, status",
    "Permissions",
    "Failures",
    "Limits",
    "Behavior",
]

each_sidecar = pytest.mark.parametrize("sidecar", SIDECARS, ids=lambda sidecar: sidecar.name)
each_document = pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def section(path: Path, title: str) -> str:
    """
    Return the text below a level-2 heading.
    """
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", path.read_text(), re.DOTALL | re.MULTILINE)
    assert match, f"{path} has no section {title}"
    return match[1]


def first_column(text: str) -> list[str]:
    """
    Return the names in backticks in the first column of tables.
    """
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_generated_parts_are_up_to_date(name: str) -> None:
    text = (ROOT / name).read_text()

    assert generated(text) == text


@each_sidecar
def test_readme_has_the_common_sections_in_order(sidecar: Documented) -> None:
    titles = re.findall(r"^## (.+)$", (ROOT / sidecar.readme).read_text(), re.MULTILINE)

    assert SECTIONS == titles


@each_sidecar
def test_every_setting_is_documented(sidecar: Documented) -> None:
    names = names_of(sidecar.settings, sidecar.prefix)

    documented = set(first_column((ROOT / sidecar.readme).read_text()))
    assert sorted(names) == sorted(documented & names)


@each_document
def test_every_mentioned_variable_exists(path: Path) -> None:
    text = path.read_text()

    for sidecar in SIDECARS:
        known = names_of(sidecar.settings, sidecar.prefix)
        mentioned = set(re.findall(rf"\b{sidecar.prefix}[A-Z_]+\b", text))
        assert set() == mentioned - known - EXAMPLES_OF_WRONG_NAMES - {SIGN_KEY}


@each_document
def test_every_mentioned_metric_exists(path: Path) -> None:
    known = {name for sidecar in SIDECARS for name in first_column(metrics(sidecar))}
    prefixes = "|".join(["sidecar_", *(sidecar.prefix.lower() for sidecar in SIDECARS)])
    pattern = rf"\b((?:{prefixes})[a-z_]+(?:_total|_seconds|_files|_keys|_failures))\b"

    mentioned = set(re.findall(pattern, path.read_text()))

    assert set() == mentioned - known


EVENTS = (ROOT / "docs/reference/events.md").read_text()


LABELS = {
    ("result", "sidecar_cycles_total"): get_args(Result),
    ("result", "sidecar_requested_revisions_total"): ("success", "error"),
    ("result", "sidecar_gate_checks_total"): ("accepted", "refused", "undecided"),
    ("result", "git_sync_wrapper_polls_total"): ("same", "new", "error"),
    ("result", "git_sync_wrapper_runs_total"): ("success", "error"),
    ("operation", "s3_sync_requests_total"): OPERATIONS,
    ("kind", "sync_perm_differences"): KINDS,
    ("reason", "sync_perm_passes_total"): PASS_REASONS,
    ("result", "sync_perm_passes_total"): ("success", "error"),
}


@each_sidecar
def test_the_values_of_each_label_of_ours_are_documented(sidecar: Documented) -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| (.+?) \|", metrics(sidecar), re.MULTILINE)
    ours = {
        (label, name)
        for name, labels in rows
        for label in re.findall(r"`(\w+)`", labels)
        if label in ("kind", "operation", "reason", "result")
    }

    missing = {one for one in ours if "| `{}` of `{}` |".format(*one) not in text}

    assert ours
    assert set() == missing


@pytest.mark.parametrize("label", LABELS, ids="-".join)
def test_exactly_the_values_of_a_label_are_documented(label: tuple[str, str]) -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text()
    row = re.search(rf"^\| `{label[0]}` of `{label[1]}` \| (.+) \|$", text, re.MULTILINE)

    assert row
    assert sorted(LABELS[label]) == sorted(re.findall(r"`(\w+)`", row[1]))


def test_exactly_the_logged_events_are_documented() -> None:
    assert sorted(code.events()) == sorted(first_column(EVENTS))


@pytest.mark.parametrize("name", sorted(first_column(EVENTS)))
def test_event_is_documented_with_its_levels_keys_and_sidecar(name: str) -> None:
    """
    The table lists every key that the code names; it may list more only if keys are computed.
    """
    event = code.events()[name]
    row = re.search(rf"^\| `{name}` \| (.+?) \| .+? \| (.*)\|$", EVENTS, re.MULTILINE)
    assert row
    place = EVENTS[: row.start()].rpartition("\n## ")[2].partition("\n")[0]
    keys = set(re.findall(r"`(\w+)`", row[2]))

    assert event.levels == set(re.findall(r"\b(?:debug|info|warning|error)\b", row[1]))
    assert set() == event.keys - keys - {None, "exc_info"}
    assert None in event.keys or set() == keys - event.keys
    assert place in {"Every sidecar", *event.sidecars} or not event.sidecars


@each_sidecar
def test_exactly_the_failure_reasons_are_documented(sidecar: Documented) -> None:
    # Rejected settings are not a failure of a cycle: each problem has its own line.
    reasons = code.reasons(sidecar.name) | REASONS_IN_TABLES.get(sidecar.name, set())
    expected = reasons - {"settings_rejected"}

    table = section(ROOT / sidecar.readme, "Failures")
    explained = re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|$", table, re.MULTILINE)

    assert sorted(expected) == sorted(first_column(table))
    assert sorted(expected) == sorted(explained), "what it means, and what to do"


def test_exactly_the_causes_of_a_ticket_are_documented() -> None:
    table = section(ROOT / "sidecars/kerberos/README.md", "Behavior")

    assert sorted(get_args(Cause)) == sorted(first_column(table))


def test_exactly_the_reasons_for_skipped_keys_are_documented() -> None:
    table = section(ROOT / "sidecars/s3-sync/README.md", "Behavior")

    assert sorted(SKIP_REASONS) == sorted(first_column(table))


@each_sidecar
def test_exactly_the_exit_codes_are_documented(sidecar: Documented) -> None:
    codes = {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}
    table = section(ROOT / "docs/reference/settings.md", "Exit codes")
    lines = (ROOT / sidecar.readme).read_text().splitlines()
    line = next(line for line in lines if line.startswith("Exit codes:"))

    assert codes == set(re.findall(r"^\| (\d) \|", table, re.MULTILINE))
    assert codes == set(re.findall(r"(?:^Exit codes:|·) (\d) ", line))


def test_exactly_the_keys_of_the_status_are_documented() -> None:
    text = section(ROOT / "docs/reference/status-page.md", "As JSON")
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}

    assert set(status(ABOUT, Health(), READY)) == documented
