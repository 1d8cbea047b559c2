"""
Documentation and code name the same settings, metrics, events, reasons and exit codes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.__main__ import FILES, ROOT, VALUES, generated, metrics
from s3_sync.credentials import ADVICE
from s3_sync.metrics import SKIP_REASONS
from s3_sync.refusals import STALE_CREDENTIALS
from s3_sync.settings import INSTEAD, PREFIX, Settings
from sidecar_runtime import errors
from sidecar_runtime.settings import names_of
from tests.docs import code

SIDECAR = ROOT / "sidecars" / "s3-sync" / "README.md"
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]
    if ".venv" not in path.parts and "dag_folder" not in path.parts
)
# Names that are mentioned because they are wrong, or not ours.
EXAMPLES_OF_WRONG_NAMES = {"S3_SYNC_LAYUOT", "S3_SYNC_SERVICE_HOST", "S3_SYNC_PORT"}


def section(path: Path, title: str) -> str:
    """
    Return the text below a heading of the second level.
    """
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", path.read_text(), re.DOTALL | re.MULTILINE)
    assert match, f"{path} has no section {title}"
    return match[1]


def first_column(text: str) -> list[str]:
    """
    Return the names in backticks that begin the rows of tables.
    """
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_generated_parts_are_as_make_docs_would_write_them(name: str) -> None:
    text = (ROOT / name).read_text()

    assert generated(text) == text


@pytest.mark.parametrize("name", ["README.md", "sidecars/s3-sync/README.md"])
def test_values_in_the_readme_are_the_snippet(name: str) -> None:
    assert f"```yaml\n{(ROOT / VALUES).read_text()}```" in (ROOT / name).read_text()


@pytest.mark.parametrize("path", [SIDECAR, ROOT / "docs" / "reference" / "settings.md"])
def test_every_setting_is_documented(path: Path) -> None:
    assert sorted(names_of(Settings, PREFIX)) == sorted(
        set(first_column(path.read_text())) & names_of(Settings, PREFIX)
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_that_is_mentioned_exists(path: Path) -> None:
    known = names_of(Settings, PREFIX) | EXAMPLES_OF_WRONG_NAMES | INSTEAD.keys()

    mentioned = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", path.read_text()))

    assert set() == mentioned - known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_metric_that_is_mentioned_exists(path: Path) -> None:
    known = set(first_column(metrics()))
    pattern = r"\b((?:sidecar|s3_sync)_[a-z_]+(?:_total|_seconds|_files|_keys|_failures))\b"

    mentioned = set(re.findall(pattern, path.read_text()))

    assert set() == mentioned - known


def test_events_are_documented_and_no_others() -> None:
    path = ROOT / "docs" / "reference" / "events.md"

    assert sorted(code.events()) == sorted(first_column(path.read_text()))


def test_reasons_of_failures_are_documented_and_no_others() -> None:
    # The settings' own reason is not one of a cycle: each problem has a line of its own.
    reasons = code.reasons() | set(STALE_CREDENTIALS.values()) | ADVICE.keys()
    expected = reasons - {"settings_rejected"}

    assert sorted(expected) == sorted(first_column(section(SIDECAR, "Failures")))


def test_reasons_of_skipped_keys_are_documented_and_no_others() -> None:
    table = section(SIDECAR, "Behaviour")

    assert sorted(SKIP_REASONS) == sorted(first_column(table))


def test_exit_codes_are_documented_and_no_others() -> None:
    codes = {str(value) for name, value in vars(errors).items() if name.startswith("EXIT_")}
    table = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    line = next(line for line in SIDECAR.read_text().splitlines() if line.startswith("Exit codes:"))

    assert codes == set(re.findall(r"^\| (\d) \|", table, re.MULTILINE))
    assert codes == set(re.findall(r"(?:^Exit codes:|·) (\d) ", line))
