"""The origin of a folder: from git, and from the variables of a CI."""

import os
import platform
import subprocess
from pathlib import Path

import pytest

from s3_sync.publisher.local.origin import find_ci_url, find_origin, find_publisher
from s3_sync.release.facts import Origin
from tests.support.s3_sync.publishing import GITHUB


def git(folder: Path, *arguments: str) -> str:
    """Run git as Ada; return its output."""
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    found = subprocess.run(
        ["git", "-C", folder, *identity, "-c", "commit.gpgsign=false", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The DAG folder of a git checkout."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "a.py").touch()
    (tmp_path / "README.md").touch()
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message=Sales by country\n\nA long story.")
    return tmp_path / "dags"


def test_reads_commit_author_and_subject_from_git(checkout: Path) -> None:
    origin = find_origin(str(checkout), {"GITHUB_ACTOR": "grace"})

    head = git(checkout, "rev-parse", "HEAD")
    assert Origin("grace", head, "", "Ada <ada@example.com>", "Sales by country") == origin


def test_git_takes_precedence_over_the_commit_of_a_ci(checkout: Path) -> None:
    assert git(checkout, "rev-parse", "HEAD") == find_origin(str(checkout), GITHUB).commit


def test_the_commit_is_dirty_only_if_tracked_files_of_the_folder_changed(checkout: Path) -> None:
    (checkout.parent / "README.md").write_text("altered")
    (checkout / "built.py").touch()
    assert not find_origin(str(checkout), {}).commit.endswith("-dirty")

    (checkout / "a.py").write_text("altered")

    assert f"{git(checkout, 'rev-parse', 'HEAD')}-dirty" == find_origin(str(checkout), {}).commit


def test_without_git_reads_the_origin_from_the_ci(tmp_path: Path) -> None:
    origin = find_origin(str(tmp_path), GITHUB)

    url = "https://github.example.com/team/dags/actions/runs/7"
    assert Origin("ada", "1" * 40, "main", "", "", url) == origin


def test_a_missing_folder_has_no_commit_and_raises_no_error(tmp_path: Path) -> None:
    assert "" == find_origin(str(tmp_path / "nowhere"), {}).commit


def test_without_a_ci_the_publisher_is_user_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    assert f"grace@{platform.node()}" == find_publisher({})
    assert "" == find_ci_url({})
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 1 << 30)  # without a name
    assert platform.node() == find_publisher({})


def test_empty_variables_count_as_unset() -> None:
    assert "https://ci/7" == find_ci_url({"CI_JOB_URL": "", "BUILD_URL": "https://ci/7"})
