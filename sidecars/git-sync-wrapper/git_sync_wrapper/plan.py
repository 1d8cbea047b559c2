"""
What a cycle has to do now: let git-sync run, or wait, until when, and why; and after a
run that failed, whether to start over. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from git_sync_wrapper.options import Options
from git_sync_wrapper.reasons import KEPT
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
        refused: Why the newest commit that arrived is not published, and when the gate
            should judge it again.
    """

    published: Published
    arrived: str = ""
    remote: str | None = None
    damage: str = ""
    refused: Wait | None = None


@dataclass(frozen=True)
class Work:
    """
    git-sync must run.
    """


class Wait(NamedTuple):
    """
    Nothing can be done until this monotonic time; if it is infinite, until somebody
    else acts.
    """

    why: SidecarError
    until: float = math.inf


@dataclass(frozen=True)
class Done:
    """
    What is published is what the settings ask for.
    """


def decide(situation: Situation, options: Options, now: float) -> Work | Wait | Done:
    """
    Return what to do; the first line that is true of the situation counts.

    Args:
        now: In monotonic seconds.
    """
    published = situation.published
    remote = situation.remote
    if remote != situation.arrived or situation.damage:
        return Work()
    # The hash of an annotated tag pins another one, the commit that the tag names.
    is_here = options.is_pinned or published.commit == remote
    # The noted refusal may concern an older commit.
    if situation.refused and published.commit != remote:
        return Work() if now >= situation.refused.until else situation.refused
    # What arrived may be gone again: a backup of the volume was restored.
    return Done() if is_here and published.is_settled(options) else Work()


class Failed(NamedTuple):
    """
    A run of git-sync that failed, and what the volume remembers of those before it.

    Args:
        reason: Why.
        before: Why the run before it failed; empty if it did not.
        tried: What git-sync has started over for since its last success; see `asked`
            of :func:`starts_over`.
    """

    reason: str
    before: str = ""
    tried: str = ""

    @property
    def is_suspicious(self) -> bool:
        """
        Whether git-sync's repository here may be the cause.
        """
        return self.reason == self.before and self.reason not in KEPT


def starts_over(failed: Failed, asked: str) -> bool:
    """
    Whether git-sync should run again, from an empty repository.

    Args:
        asked: What the remote has now, and the settings; empty if nobody has asked, or
            if it does not answer.
    """
    # Once for the same: what stays then is no fault of the repository here.
    return failed.is_suspicious and asked not in ("", failed.tried)
