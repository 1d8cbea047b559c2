"""Several repositories on one volume, with the containers of the documentation."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.git.git_sync import GitSite
from tests.support.revisions import make_revision
from tests.support.waiting import wait_until

PAGE = Path(__file__).parents[3] / "docs/how-to/sync-several-repositories.md"
RETAIN_SECONDS = 4


def containers(page: str) -> list[dict[str, Any]]:
    """Return the containers of the values on a page."""
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    values = yaml.safe_load(block)
    assert "/git/dags" == values["config"]["core"]["dags_folder"]
    found: list[dict[str, Any]] = values["dagProcessor"]["extraInitContainers"]
    return found


class Team:
    """A team's repository, and the wrapper that publishes it."""

    def __init__(self, here: GitSite, container: dict[str, Any]) -> None:
        self.given = {item["name"]: item["value"] for item in container["env"]}
        volume = str(here.root)
        path = self.given["GITSYNC_REPO"].removeprefix("https://git.example.com/")
        name = path.replace("/", "-")
        self.repository = here.server.repository(name)
        self.root = Path(self.given["GITSYNC_ROOT"].replace("/git", volume, 1))
        self.link = Path(self.given["GITSYNC_LINK"].replace("/git", volume, 1))
        self.number = 0
        self.commit()
        probe = container["startupProbe"]["httpGet"]["port"]
        assert f":{probe}" == self.given["GIT_SYNC_WRAPPER_HTTP_BIND"]
        assert [{"name": "git-sync-http", "containerPort": probe}] == container["ports"]
        instead = {
            "GITSYNC_REPO": here.server.url(name),
            "GITSYNC_ROOT": str(self.root),
            "GITSYNC_LINK": str(self.link),
            "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",  # tests run side by side
            "GIT_SYNC_WRAPPER_GATE": "command",
            "GIT_SYNC_WRAPPER_GATE_COMMAND": "/usr/bin/test ! -e BROKEN",
            "GIT_SYNC_WRAPPER_RETAIN_FOR": f"{RETAIN_SECONDS}s",
        }
        self.wrapper = here.wrapper(**(self.given | instead))

    def commit(self, **more: bytes) -> str:
        self.number += 1
        files = {**make_revision(self.number), **more}
        return str(self.repository.commit(files, whole=True))

    def shows(self, commit: str) -> bool:
        return self.link.is_symlink() and commit == self.link.readlink().name


@pytest.fixture
def teams(here: GitSite) -> list[Team]:
    found = [Team(here, container) for container in containers(PAGE.read_text())]
    for name in ("GITSYNC_ROOT", "GITSYNC_LINK", "GIT_SYNC_WRAPPER_HTTP_BIND"):
        assert len(found) == len({team.given[name] for team in found}), name
    for team in found:
        team.wrapper.wait_until_ready()
    return found


def test_failures_of_one_repository_do_not_affect_the_others(
    teams: list[Team], here: GitSite
) -> None:
    platform, finance, sales = teams
    dags = here.root / "dags"
    assert {"platform", "finance", "sales"} == {path.name for path in dags.iterdir()}
    before = {team.link: team.link.readlink() for team in (finance, sales)}

    refused = platform.commit(BROKEN=b"")
    assert refused == platform.wrapper.wait_for_event("revision_refused")["revision"]
    finance.repository.delete_branch("main")
    finance.wrapper.wait_for_event("cycle_failed")
    newest = sales.commit()
    wait_until(lambda: sales.shows(newest), "the third goes on")

    assert before[finance.link] == finance.link.readlink()
    assert b"1" in (platform.link / "either").read_bytes()
    assert 200 == sales.wrapper.get("/readyz").status
