"""Failures around git-sync, for the tests of git-sync alone and of the wrapper."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.support.http.loopback import Exchange, Request


def is_pack(request: Request) -> bool:
    return request.path.endswith("/git-upload-pack") and b"command=fetch" in request.body


def after(seconds: float) -> Callable[[Exchange], None]:
    def late(exchange: Exchange) -> None:
        exchange.pause(seconds)
        exchange.send(exchange.good())

    return late


def tmp_link(root: Path) -> None:
    """Create the temporary link that a kill between two system calls leaves beside the link."""
    os.symlink("nowhere", root / "tmp-link")


def shallow_lock(root: Path) -> None:
    """Create the lock that a killed `git fetch` leaves."""
    (root / ".git/shallow.lock").touch()


def index_lock(root: Path) -> None:
    """Create the lock that a killed checkout leaves, in every worktree."""
    for worktree in (root / ".git/worktrees").iterdir():
        (worktree / "index.lock").touch()


def damage_link(root: Path) -> None:
    for path in root.iterdir():
        if path.is_symlink():
            path.unlink()
            (path / "something").mkdir(parents=True)


def corrupt(root: Path) -> None:
    for folder, _, names in os.walk(root / ".git/objects"):  # git may remove files here
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                path.chmod(0o644)
                path.write_bytes(b"damaged")
