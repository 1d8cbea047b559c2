"""The search for a fallback: which failures end it, and which are retried."""

from typing import cast

import pytest

from git_sync_wrapper.engine.engine import Engine
from git_sync_wrapper.fallback import NoFallback, fall_back
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.checks import Finding
from sidecar_runtime.gate.gate import RevisionRefused
from tests.support.raising import raised


class History:
    """
    A fake engine: the parent of c5 is c4, and so on; some commits cannot be fetched.

    Attributes:
        asked: The fetches: a commit or a depth each.
    """

    def __init__(self, **failing: SidecarError) -> None:
        self._failing = failing
        self.is_pinned = False
        self.asked: list[str] = []

    def parent(self, commit: str, fence: Fence) -> str:
        return f"c{int(commit[1:]) - 1}" if commit != "c0" else ""

    def run(self, fence: Fence, ref: str = "", depth: str = "") -> None:
        self.asked.append(ref or f"depth {depth}")
        if ref in self._failing:
            raise self._failing[ref]


def search(history: History, *accepted: str, refused: str = "c5") -> str:
    def judge(commit: str) -> RevisionRefused | None:
        return None if commit in accepted else RevisionRefused(commit, [Finding("", None, "no")])

    return fall_back(cast(Engine, history), refused, judge, Fence())


def test_finds_the_newest_accepted_ancestor() -> None:
    assert "c3" == search(History(), "c3", "c1")


def test_searches_only_the_20_commits_before_the_refused_one() -> None:
    assert "c80" == search(History(), "c80", refused="c100")
    with pytest.raises(NoFallback, match="and the 20 commits before it"):
        search(History(), "c79", refused="c100")
    with pytest.raises(NoFallback, match="and all commits before it"):
        search(History(), "none", refused="c19")


def test_continues_behind_a_commit_whose_submodule_is_missing() -> None:
    history = History(c4=SidecarError("submodule_missing", "not our ref"))

    assert "c3" == search(history, "c4", "c3")
    with pytest.raises(NoFallback, match="before it, of which c4 cannot be checked out: not our"):
        search(history, "none")


def test_ends_the_search_at_a_commit_that_is_missing_from_the_refs_history() -> None:
    history = History(c4=SidecarError("ref_not_found", "not our ref"))

    with pytest.raises(NoFallback, match="cannot be fetched"):
        search(history, "c3")
    assert ["c4", "depth 21", "c4"] == history.asked


@pytest.mark.parametrize("reason", ["server_error", "git_sync_failed", "remote_unreachable"])
def test_raises_a_temporary_failure_so_that_the_search_is_retried(reason: str) -> None:
    """The cycle fails, and the next cycle searches again."""
    error = raised(SidecarError, search, History(c4=SidecarError(reason, "502")), "c3")
    assert reason == error.reason
