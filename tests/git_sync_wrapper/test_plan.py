"""
What a cycle does in the situations that scenarios cannot tell apart.
"""

from __future__ import annotations

from typing import Any

import pytest

from git_sync_wrapper.options import read_options
from git_sync_wrapper.plan import (
    Done,
    Situation,
    Wait,
    Work,
    decide,
)
from git_sync_wrapper.snapshot import Published
from sidecar_runtime.errors import SidecarError

OLD = "1" * 40
NEW = "2" * 40
REPO = "https://git.example.com/dags.git"
MAIN = read_options([], {"GITSYNC_REPO": REPO, "GITSYNC_REF": "main"})
PIN = read_options([], {"GITSYNC_REPO": REPO, "GITSYNC_REF": NEW})
OF_MAIN = Published(OLD, OLD, MAIN.made_by, repo=REPO, ref="main")
FALLBACK = OF_MAIN._replace(fallback=NEW)
REFUSED = SidecarError("revision_refused", "dag.py: line 1")
LEFT: Any = {"remote": OLD, "arrived": OLD}
CAME: Any = {"remote": NEW, "arrived": NEW}

HOLDER = [
    # only git-sync can ask for a GitHub App
    (Work(), Situation(OF_MAIN, OLD)),
    # the gate refuses the newest commit
    (Wait(REFUSED), Situation(OF_MAIN, **CAME, refusal=REFUSED)),
    # the gate refuses every commit, on an empty volume
    (Wait(REFUSED), Situation(Published(), **CAME, refusal=REFUSED)),
    # the gate should be asked again
    (Work(), Situation(OF_MAIN, **CAME, refusal=REFUSED, is_gate_due=True)),
    # the refused commit was taken back
    (Done(), Situation(OF_MAIN, **LEFT, refusal=REFUSED)),
    # a restart finds a fallback
    (Work(), Situation(FALLBACK, **CAME)),
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
    assert decision == decide(situation, MAIN)


def test_a_pin_that_is_published_is_settled() -> None:
    """It is the hash of a tag, which names another commit."""
    of_pin = OF_MAIN._replace(ref=NEW)

    assert Done() == decide(Situation(of_pin, **CAME), PIN)
