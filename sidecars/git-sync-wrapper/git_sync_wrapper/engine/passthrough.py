"""
Runs git-sync unchanged, with one addition: no git process is left behind when it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from git_sync_wrapper.flags.options import ROOT
from git_sync_wrapper.settings import PREFIX

# Signals that a person or the kubelet may send; git-sync decides how to handle them.
FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def run(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """
    Run git-sync with the same arguments and environment; return its exit code.

    Once it has ended, in whatever way, its process group is killed. If a signal ended it, the exit
    code is 128 plus the signal's number.
    """
    own = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
    if "GIT_SYNC_ROOT" not in own:  # the old name would win over the new one
        own.setdefault("GITSYNC_ROOT", ROOT)
    children: list[subprocess.Popen[bytes]] = []
    waiting: list[int] = []

    def hand_on() -> None:
        # A handler that interrupts this forwards all waiting signals: then the list is empty.
        with suppress(IndexError):
            while children:  # empty until git-sync has started
                os.kill(children[0].pid, waiting.pop(0))

    def forward(number: int, _: object) -> None:
        waiting.append(number)
        hand_on()

    for number in FORWARDED:
        signal.signal(number, forward)
    child = subprocess.Popen([program, *arguments], env=own, process_group=0)
    children.append(child)
    hand_on()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # not reaped yet: its number cannot have been reused
    code = child.wait()
    return code if code >= 0 else 128 - code
