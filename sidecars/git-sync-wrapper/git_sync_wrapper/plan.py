"""
What a cycle has to do now: let git-sync run, or not, and why not. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from git_sync_wrapper.options import Options
from git_sync_wrapper.snapshot import Published
from sidecar_runtime.errors import SidecarError


class Situation(NamedTuple):
    """
    What is known before git-sync runs.

    Args:
        published: What is published of this repository; nothing of another one.
        arrived: What git-sync brought last, or what this process found published.
        remote: What the ref names on the remote; None if nobody has asked, or if only
            git-sync can ask.
        damage: What is damaged in what is published; empty if nothing is.
        refusal: Why the newest commit that arrived is not published.
        is_gate_due: Whether the gate should judge that commit again.
    """

    published: Published
    arrived: str = ""
    remote: str | None = None
    damage: str = ""
    refusal: SidecarError | None = None
    is_gate_due: bool = False


@dataclass(frozen=True)
class Work:
    """
    git-sync must run.
    """


@dataclass(frozen=True)
class Wait:
    """
    Nothing can be done before somebody else acts.
    """

    why: SidecarError


@dataclass(frozen=True)
class Done:
    """
    What is published is what the settings ask for.
    """


def decide(situation: Situation, options: Options) -> Work | Wait | Done:
    """
    Return what to do; the first line that is true of the situation counts.
    """
    published = situation.published
    remote = situation.remote
    if remote != situation.arrived or situation.damage:
        return Work()
    # The hash of an annotated tag pins another one, the commit that the tag names.
    is_here = options.is_pinned or published.commit == remote
    # The noted refusal may concern an older commit.
    if situation.refusal is not None and published.commit != remote:
        return Work() if situation.is_gate_due else Wait(situation.refusal)
    # What arrived may be gone again: a backup of the volume was restored.
    return Done() if is_here and published.is_settled(options) else Work()
