"""Two revisions, and a fault that keeps one of their files from being renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.s3_sync.stage import Stage

ONE = {"a.py": "one", "d/b.py": "one"}

TWO = {"a.py": "two", "d/b.py": "one", "c.py": "two"}


def links(stage: Stage, path: str, *revisions: str) -> bool:
    """Whether the tree and these snapshots share a file through hard links."""
    places = [stage.state / "snapshots" / revision / path for revision in revisions]
    return all(place.samefile(stage.state / "tree" / path) for place in places)


@contextmanager
def refusing_a_name() -> Iterator[None]:
    """Make each rename to a.py fail until the end of the block."""
    rename = os.rename

    def refuse(source: str, target: str, **fds: int) -> None:
        if target == "a.py":
            raise OSError(errno.EACCES, "Permission denied", target)
        rename(source, target, **fds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        yield
