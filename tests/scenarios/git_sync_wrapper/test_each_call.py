"""
A crash or an error at each call with which git-sync-wrapper publishes a commit.

With `--full` at every call; otherwise at a few, which a seed draws.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.each_call.drawing import KINDS, at_each_call
from tests.support.each_call.stage import Life, Stage
from tests.support.git.git_sync import GIT_SYNC, GitSite, git_site
from tests.support.revisions import make_revision


def open_wrapper(stage: Stage, site: GitSite) -> Life:
    given = {**site.environment(), "GIT_SYNC_WRAPPER_GIT_SYNC": str(GIT_SYNC)}
    more = {"PATH": "/usr/bin:/bin", "HOME": str(site.folder)}
    return stage.open("git-sync-wrapper", {**given, **more})  # type: ignore[dict-item]


def left_over(site: GitSite) -> list[str]:
    """
    Return what only a cycle at work may have on the volume.
    """
    found = {path.name for path in site.store.glob(".*")} - {".airflowignore"}
    return sorted(found | {path.name for path in site.root.glob("repo.*")})


def assert_it_has_converged(site: GitSite, life: Life, where: str) -> None:
    results = life.settle()
    assert results[-1] == "unchanged", (where, results, life.last)
    assert site.files() == make_revision(2), (where, results)
    assert life.last["ready"], (where, life.last)
    assert not life.last["shortfall"], (where, life.last)
    assert [] == left_over(site), where


@pytest.mark.timeout(3_600)  # in full, every call takes a second or two
@pytest.mark.sample(3)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_call_of_a_publish_tears_loses_and_leaves_nothing(
    stage: Stage, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    def publish(at: int) -> int:
        """
        Publish a first commit, and a second one with a fault; return how many calls
        that took.
        """
        folder = tmp_path / str(at)
        folder.mkdir()
        with git_site(folder) as site:
            site.commit_revision(1)
            with open_wrapper(stage, site) as life:
                results = life.settle()
                assert results[-1] == "unchanged", (results, life.last)
                descriptors = life.last["descriptors"]
                site.commit_revision(2)
                answer = life.cycle((at, kind))
                where = f"{kind} at call {at}: {answer}"
                assert site.files() in (make_revision(1), make_revision(2)), where
                if not life.has_crashed:
                    assert_it_has_converged(site, life, where)
                    assert life.last["descriptors"] <= descriptors + 1, where
            with open_wrapper(stage, site) as life:
                assert_it_has_converged(site, life, f"restart after {where}")
            return int(answer.get("calls", 0))

    at_each_call(publish, request, kind)
