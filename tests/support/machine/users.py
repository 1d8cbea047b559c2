"""
Programs that run as another user, even if that user cannot enter the interpreter's
home.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT


def as_user(folder: Path, program: Path, uid: int, gid: int) -> Path:
    """
    Write a script that runs a program as another user, without capabilities or other
    groups.

    If Python or this repository is in a closed folder (`/root`), a mount namespace of
    the process makes it reachable without changing anything else.

    Args:
        folder: The folder for the script; the user must be able to reach it.
        program: The program to run; arguments are passed on, and the process id stays
            the same.
        uid: The user; needs no entry in /etc/passwd.
        gid: Its group.
    """
    if os.getuid() != 0:
        pytest.skip("another user needs root")
    script = folder / f"{program.name}-as-{uid}"
    if script.exists():  # kept, because a shell may be reading it
        return script
    folder.mkdir(parents=True, exist_ok=True)
    drop = f"exec setpriv --reuid={uid} --regid={gid} --clear-groups --inh-caps=-all"
    lines = [f'{drop} {shlex.quote(str(program))} "$@"']
    # The program may be another Python than ours, such as Airflow's.
    trees = {Path(sys.base_prefix), ROOT, program.resolve().parents[1]}
    hidden = {
        tree: closed
        for tree in trees
        if (closed := _closed_ancestor(tree)) is not None
        and trees.isdisjoint(tree.parents)
    }
    if hidden:
        lines = [*_show(folder, hidden), *lines]
    inner = folder / f".{script.name}"
    inner.write_text("\n".join(["set -e", *lines]) + "\n")
    enter = "unshare --mount --propagation private " if hidden else ""
    script.write_text(f'#!/bin/sh\nexec {enter}sh {inner} "$@"\n')
    script.chmod(0o755)
    if (
        hidden
        and subprocess.run(
            ["unshare", "--mount", "true"], capture_output=True
        ).returncode
    ):
        pytest.skip(
            "Python lies in a closed folder, and this machine allows no mount namespace"
        )
    return script


def _closed_ancestor(tree: Path) -> Path | None:
    """
    Return the first folder on the path to a tree that other users cannot enter.
    """
    for parent in reversed(tree.resolve().parents):
        if not parent.stat().st_mode & 0o001:
            return parent
    return None


def _show(folder: Path, hidden: dict[Path, Path]) -> list[str]:
    """
    Return shell commands that mount an open, empty folder over each closed one, with
    the trees.
    """
    lines = []
    for number, tree in enumerate(hidden):
        lines += [
            f"mkdir -p {folder}/.{number}",
            f"mount --bind {tree} {folder}/.{number}",
        ]
    lines += [
        f"mount -t tmpfs -o mode=0755 none {closed}" for closed in set(hidden.values())
    ]
    for number, tree in enumerate(hidden):
        lines += [f"mkdir -p {tree}", f"mount --move {folder}/.{number} {tree}"]
    return lines
