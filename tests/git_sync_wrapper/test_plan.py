"""
What a cycle does, situation by situation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from git_sync_wrapper.cycle import Session
from git_sync_wrapper.engine import Engine
from git_sync_wrapper.options import read_options
from git_sync_wrapper.plan import (
    Done,
    Failed,
    Situation,
    Wait,
    Work,
    decide,
    starts_over,
)
from git_sync_wrapper.snapshot import Published
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.support.raising import raised

OLD = "1" * 40
NEW = "2" * 40
REPO = "https://git.example.com/dags.git"
MAIN = read_options([], {"GITSYNC_REPO": REPO, "GITSYNC_REF": "main"})
PIN = read_options([], {"GITSYNC_REPO": REPO, "GITSYNC_REF": NEW})
OF_MAIN = Published(OLD, OLD, MAIN.made_by, repo=REPO, ref="main")
REFUSED = SidecarError("revision_refused", "dag.py: line 1")
LEFT: Any = {"remote": OLD, "arrived": OLD}
CAME: Any = {"remote": NEW, "arrived": NEW}

FINAL = Wait(REFUSED)

HOLDER = [
    # nearly every cycle
    (Done(), Situation(OF_MAIN, **LEFT)),
    # files are damaged
    (Work(), Situation(OF_MAIN, **LEFT, damage="dag.py")),
    # only git-sync can ask for a GitHub App
    (Work(), Situation(OF_MAIN, OLD)),
    # the gate refuses the newest commit
    (FINAL, Situation(OF_MAIN, **CAME, refused=FINAL)),
    # the gate refuses every commit, on an empty volume
    (FINAL, Situation(Published(), **CAME, refused=FINAL)),
    # the gate should be asked again later
    (Wait(REFUSED, 31), Situation(OF_MAIN, **CAME, refused=Wait(REFUSED, 31))),
    # the gate should be asked again
    (Work(), Situation(OF_MAIN, **CAME, refused=Wait(REFUSED, 30))),
    # another commit was pushed since
    (Work(), Situation(OF_MAIN, OLD, NEW, refused=FINAL)),
    # the refused commit was taken back
    (Done(), Situation(OF_MAIN, **LEFT, refused=FINAL)),
    # a restart finds a fallback
    (Work(), Situation(OF_MAIN._replace(fallback=NEW), **CAME)),
    # the record still names a refused commit
    (Work(), Situation(OF_MAIN._replace(refused=NEW), **LEFT)),
    # another branch has the same commit
    (Work(), Situation(OF_MAIN._replace(ref="prd"), **LEFT)),
    # an older volume was restored
    (Work(), Situation(OF_MAIN, **CAME)),
    # a link without its record
    (Work(), Situation(Published(OLD, OLD), **LEFT)),
]


@pytest.mark.parametrize(("decision", "situation"), HOLDER)
def test_each_situation_has_one_decision(
    decision: Work | Wait | Done, situation: Situation
) -> None:
    assert decision == decide(situation, MAIN, 30.0)


def test_a_pin_that_is_published_is_settled() -> None:
    """It is the hash of a tag, which names another commit."""

    assert Done() == decide(Situation(OF_MAIN._replace(ref=NEW), **CAME), PIN, 30.0)


AGAIN = Failed("git_sync_failed", "git_sync_failed")
FAILURES = [
    # also if that has helped nothing for another commit
    (True, AGAIN._replace(tried=OLD), NEW),
    (False, AGAIN._replace(tried=NEW), NEW),
    # it may not repeat
    (False, AGAIN._replace(before="tls_failed"), NEW),
    # the remote does not answer
    (False, AGAIN._replace(tried=OLD), ""),
    # an empty repository would fail in the same way
    (False, Failed("throttled", "throttled"), NEW),
]


@pytest.mark.parametrize(("is_over", "failed", "asked"), FAILURES)
def test_starts_over_if_the_repository_here_may_be_what_fails(
    is_over: bool, failed: Failed, asked: str
) -> None:
    assert is_over is starts_over(failed, asked)


def test_starts_over_once_in_a_cycle_whoever_pushes_meanwhile() -> None:
    parts = Mock()
    parts.engine.run.side_effect = REFUSED  # or another error
    parts.engine.asked.side_effect = [OLD, NEW]

    raised(
        SidecarError,
        lambda: Session(parts)._run(Mock(**{"failed.return_value": AGAIN}), Fence()),
    )

    parts.engine.start_over.assert_called_once()


def test_starts_over_for_each_other_setting() -> None:
    git = Mock()
    asked = {
        Engine("", options, git).asked(Fence())
        for options in (MAIN, PIN, replace(MAIN, repo="b"), replace(MAIN, depth="9"))
    }

    assert 4 == len(asked)
