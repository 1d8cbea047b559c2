"""
What a cycle does in each situation.
"""

from __future__ import annotations

from typing import Any

import pytest

from git_sync_wrapper.options import read_options
from git_sync_wrapper.plan import Done, Situation, Wait, Work, decide
from git_sync_wrapper.snapshot import Published
from sidecar_runtime.errors import SidecarError

OLD, NEW = "1" * 40, "2" * 40
REPO = "https://git.example.com/dags.git"
MAIN = read_options([], {"GITSYNC_REPO": REPO, "GITSYNC_REF": "main"})
PIN = read_options([], {"GITSYNC_REPO": REPO, "GITSYNC_REF": NEW})
NOTHING = Published()
OF_MAIN = Published(OLD, OLD, MAIN.made_by, repo=REPO, ref="main")
OF_PIN = Published(NEW, NEW, MAIN.made_by, repo=REPO, ref=NEW)
FALLBACK = OF_MAIN._replace(fallback=NEW)
REFUSED = SidecarError("revision_refused", "dag.py: line 1")
HELD = SidecarError("target_locked", "pod a holds the lock")
LEFT: Any = {"remote": OLD, "arrived": OLD}
CAME: Any = {"remote": NEW, "arrived": NEW}
STAND: Any = {"holder": HELD}

HOLDER = {
    "an empty volume, which nobody has compared": (Work(), Situation(NOTHING)),
    "nothing was pushed": (Done(), Situation(OF_MAIN, **LEFT)),
    "a new commit": (Work(), Situation(OF_MAIN, OLD, NEW)),
    "only git-sync can ask for a GitHub App": (Work(), Situation(OF_MAIN, OLD)),
    "damage that could not be repaired": (
        Work(),
        Situation(OF_MAIN, **LEFT, damage="a.py"),
    ),
    "the gate refuses the newest": (
        Wait(REFUSED),
        Situation(OF_MAIN, **CAME, refusal=REFUSED),
    ),
    "the gate refuses all of an empty volume": (
        Wait(REFUSED),
        Situation(NOTHING, **CAME, refusal=REFUSED),
    ),
    "the gate should be asked again": (
        Work(),
        Situation(OF_MAIN, **CAME, refusal=REFUSED, is_gate_due=True),
    ),
    "a refused commit was taken back": (
        Done(),
        Situation(OF_MAIN, **LEFT, refusal=REFUSED),
    ),
    "a restart finds a fallback": (Work(), Situation(FALLBACK, **CAME)),
    "the record still names a refused commit": (
        Work(),
        Situation(OF_MAIN._replace(refused=NEW), **LEFT),
    ),
    "another branch has the same commit": (
        Work(),
        Situation(OF_MAIN._replace(ref="prd"), **LEFT),
    ),
    "a depth was set": (Work(), Situation(OF_MAIN._replace(made_by="x"), **LEFT)),
    "a link without its record": (Work(), Situation(Published(OLD, OLD), **LEFT)),
}
STANDBY = {
    "a daemon never asks": (Wait(HELD), Situation(OF_MAIN, **STAND)),
    "the holder has it": (Done(), Situation(OF_MAIN, remote=OLD, **STAND)),
    "the holder has published it damaged": (
        Wait(HELD),
        Situation(OF_MAIN, remote=OLD, damage="a.py", **STAND),
    ),
    "the holder has not brought it yet": (
        Wait(HELD),
        Situation(OF_MAIN, remote=NEW, **STAND),
    ),
    "its gate refuses it": (
        Done(),
        Situation(OF_MAIN._replace(refused=NEW), remote=NEW, **STAND),
    ),
    "it has a fallback for it": (Done(), Situation(FALLBACK, remote=NEW, **STAND)),
    "it has published nothing": (Wait(HELD), Situation(NOTHING, remote=NEW, **STAND)),
}
PINNED = {
    "the pin is published": (Done(), Situation(OF_PIN, **CAME)),
    "another commit is": (Work(), Situation(OF_MAIN, OLD, NEW)),
    "the hash of a tag, which names another": (
        Done(),
        Situation(OF_PIN._replace(commit=OLD), remote=NEW, **STAND),
    ),
    "a gate that refuses a pin": (
        Wait(HELD),
        Situation(OF_MAIN._replace(refused=NEW), remote=NEW, **STAND),
    ),
}


@pytest.mark.parametrize("name", [*HOLDER, *STANDBY])
def test_each_situation_has_one_decision(name: str) -> None:
    wanted, situation = (HOLDER | STANDBY)[name]

    assert wanted == decide(situation, MAIN)


@pytest.mark.parametrize("name", PINNED)
def test_a_pinned_commit_has_no_other_that_would_do(name: str) -> None:
    wanted, situation = PINNED[name]

    assert wanted == decide(situation, PIN)
