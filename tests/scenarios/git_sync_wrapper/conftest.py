"""Fixtures for the git-sync-wrapper scenarios."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.git.git_sync import GitSite, git_site, skip_without_git_sync


@pytest.fixture(autouse=True)
def needs_git_sync() -> None:
    """Skip if git-sync, or git's server, is missing."""
    skip_without_git_sync()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[GitSite]:
    """A remote with one repository and one commit (revision 1), and an empty volume."""
    with git_site(tmp_path) as site:
        site.commit_revision(1)
        yield site


def record(here: GitSite) -> Any:
    """Return the record of what is published."""
    return json.loads((here.store / "published.json").read_text())
