"""
The documents link what exists, and name what the code has: settings, metrics, events,
reasons.
"""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from docs import site
from docs.__main__ import (
    FILES,
    SHARED_REASONS,
    generated,
)
from docs.sidecars import SIDECARS, Documented
from sidecar_runtime import __version__
from tests import ROOT
from tests.support.ledger.documented import (
    first_column,
    metric_tables,
    names_of,
    section,
)

DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/**/*.md")]
    if not {".venv", "dag_folder", "dist"} & {*path.parts}
)
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
# Names that the documents mention as wrong, foreign, or of commands only.
NO_SETTINGS = {
    "S3_SYNC_BUCKET",
    "S3_SYNC_LAYUOT",
    "S3_SYNC_PORT",
    "S3_SYNC_SERVICE_HOST",
    "S3_SYNC_SIGN_KEY",
}

each_sidecar = pytest.mark.parametrize(
    "sidecar", SIDECARS, ids=lambda sidecar: sidecar.name
)


def without_code(text: str) -> str:
    """
    Return a document without its code blocks.
    """
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def text_of(*folders: Path) -> str:
    return "\n".join(
        path.read_text() for folder in folders for path in sorted(folder.rglob("*.py"))
    )


def anchors(path: Path) -> set[str]:
    """
    Return the anchors that GitHub creates for the headings of a document.
    """
    headings = re.findall(r"^#+ (.+)$", without_code(path.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings
    }


def test_links_resolve_and_every_document_and_picture_is_linked() -> None:
    broken = []
    linked = {ROOT / "README.md"}

    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if target != path:
                linked.add(target)
            if not re.match(r"[a-z]+:", link) and (
                not target.exists() or (anchor and anchor not in anchors(target))
            ):
                broken.append(f"{path.relative_to(ROOT)}: {link}")

    assert [] == broken
    assert set() == {*DOCUMENTS, *(ROOT / "docs").rglob("*.[ps][nv]g")} - linked


def test_no_file_claims_a_home_that_only_the_build_knows() -> None:
    home = r"https?://[[:alnum:]_.-]+/[[:alnum:]_-]*airflow-sidecars"

    found = subprocess.run(
        ["git", "grep", "--extended-regexp", home],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert (1, "") == (found.returncode, found.stdout + found.stderr)


def test_every_document_is_in_the_navigation_of_the_site_once() -> None:
    listed = [*site.pages(tomllib.loads(site.CONFIG.read_text())["project"]["nav"])]

    assert sorted(str(path.relative_to(ROOT)) for path in DOCUMENTS) == sorted(listed)


@pytest.mark.parametrize("name", FILES)
def test_generated_parts_are_up_to_date(name: str) -> None:
    text = (ROOT / name).read_text()

    assert generated(text) == text


@each_sidecar
def test_readme_has_the_common_sections_and_all_settings(sidecar: Documented) -> None:
    text = (ROOT / sidecar.readme).read_text()

    assert SECTIONS == re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert set() == names_of(sidecar.settings, sidecar.prefix) - {*first_column(text)}


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_mentioned_variable_metric_and_test_exists(path: Path) -> None:
    text = path.read_text()
    tests = text_of(ROOT / "tests")
    known = {*first_column(metric_tables())}
    prefixes = "|".join(["sidecar_", *(sidecar.prefix.lower() for sidecar in SIDECARS)])
    ends = "_total|_seconds|_files|_keys|_failures"

    for sidecar in SIDECARS:
        assert (
            set()
            == set(re.findall(rf"\b{sidecar.prefix}[A-Z_]+\b", text))
            - names_of(sidecar.settings, sidecar.prefix)
            - NO_SETTINGS
        )
    assert (
        set() == {*re.findall(rf"\b((?:{prefixes})[a-z_]+(?:{ends}))\b", text)} - known
    )
    for name in (
        re.findall(r"`(test_\w+)`", text) if path.name == "what-is-defended.md" else ()
    ):
        assert f"def {name}(" in tests, name


def test_exactly_the_logged_events_are_documented_with_their_levels_and_keys() -> None:
    row = r"^\| (`[`\w, ]+`) \| (.*?) \| .* \| (.*?) \|$"
    page = (ROOT / "docs/reference/events.md").read_text()
    rows = [
        (event, cells)
        for names, *cells in re.findall(row, page, re.MULTILINE)
        for event in re.findall(r"\w+", names)
    ]
    code = text_of(ROOT / "sidecars", ROOT / "runtime")
    call = r"\b(?:log|get_logger\(.*?\))\.(\w+)\(\s*\"(\w+)\"([^()]*)"
    calls = [
        (event, level.replace("exception", "error"), re.findall(r"\b(\w+)=", rest))
        for level, event, rest in re.findall(call, code)
    ]

    assert set() == {event for event, _, _ in calls} - {event for event, _ in rows}
    for event, (levels, keys) in rows:
        assert f'"{event}"' in code
        for _, level, given in (one for one in calls if one[0] == event):
            assert level in levels, event
            assert {*given} <= {*re.findall(r"`(\w+)`", keys)} | {"exc_info"}, event


@each_sidecar
def test_exactly_the_failure_reasons_are_documented(sidecar: Documented) -> None:
    documented = first_column(section((ROOT / sidecar.readme).read_text(), "Failures"))

    assert set() == {*documented} & {*SHARED_REASONS}
    assert set() == {*sidecar.reasons} - {*documented, *SHARED_REASONS}
    assert set() == {*documented, *SHARED_REASONS} - set(
        re.findall(r"\w+", text_of(ROOT / "sidecars" / sidecar.name, ROOT / "runtime"))
    )


def test_projects_and_changelog_have_the_version_of_the_code_and_the_license() -> None:
    projects = [
        *ROOT.glob("sidecars/*/pyproject.toml"),
        *ROOT.glob("[ar]*/pyproject.toml"),
    ]
    (released, *_) = re.findall(
        r"^## \[(\d[^]]*)\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )

    assert __version__ == released
    assert 6 == len(projects)
    for path in projects:
        project = tomllib.loads(path.read_text())["project"]
        assert (__version__, "Apache-2.0") == (project["version"], project["license"])
        assert [(ROOT / "LICENSE").read_text()] == [
            (path.parent / name).read_text() for name in project["license-files"]
        ]


@pytest.mark.parametrize(
    "path", [*ROOT.glob("sidecars/*/Dockerfile")], ids=lambda p: p.parent.name
)
def test_installs_only_packages_pinned_by_hash(path: Path) -> None:
    """
    Only this repository's own code is installed without hashes, and without
    dependencies.
    """
    text = path.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip\b[^&\n]* install ([^&\n]+)", text)

    assert installs
    assert [] == [
        one for one in installs if not re.search("--require-hashes|--no-deps", one)
    ]
    for lock in re.findall(r"requirements/([\w-]+\.txt)", text):
        pins = re.findall(
            r"^[\w.-]+==.*(?:\n .*)*",
            (ROOT / "requirements" / lock).read_text(),
            re.MULTILINE,
        )
        assert pins
        assert [] == [pin for pin in pins if "--hash=sha256:" not in pin]


def test_labels_contain_no_names_except_principal_and_ccache() -> None:
    cells = re.findall(r"^\| `\w+` \| \w+ \| (.*?) \|", metric_tables(), re.MULTILINE)

    assert {
        "reason",
        "result",
        "operation",
        "kind",
        "status",
        "name",
        "version",
        "revision",
        "principal",
        "ccache",
    } == {*re.findall(r"\w+", " ".join(cells))}
