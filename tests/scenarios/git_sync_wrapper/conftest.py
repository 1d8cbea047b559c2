"""
Fixtures of the git-sync-wrapper scenarios, and the program that stands for git-sync in them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.git_server import GitServer, skip_reason
from tests.support.git_sync import ENGINES, GitSite


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """
    Run each test with the real git-sync where there is one, else with its stand-in; `--full`: both.
    """
    if "engine" in metafunc.fixturenames:
        names = list(ENGINES) if metafunc.config.getoption("--full") else [list(ENGINES)[-1]]
        metafunc.parametrize("engine", names, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Path:
    """
    The program that stands for git-sync; the end of the run says which ones ran.
    """
    record_property("engine", request.param)
    return ENGINES[request.param]


@pytest.fixture
def here(engine: Path, tmp_path: Path) -> Iterator[GitSite]:
    """
    A remote with one repository and one commit, revision 1; and an empty volume.
    """
    if reason := skip_reason():
        pytest.skip(reason)
    with GitServer(tmp_path / "remote") as server:
        site = GitSite(engine, server, tmp_path / "pod")
        site.folder.mkdir()
        site.commit_revision(1)
        yield site
        site.close()
