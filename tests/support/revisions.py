"""
Revisions whose files all contain the revision, and a process that reads whole
revisions.

Each file starts with a line `<revision> <number of the revision's files> <path>`.
`python revisions.py LINK RETAIN_SECONDS` repeatedly resolves the link and reads all
files below it until standard input closes. Then it prints its results as one line of
JSON.
"""

import json
import os
import random
import selectors
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

HELD = 200
"""Maximum number of resolved paths that a reader keeps to read again."""
PAUSE_SECONDS = 0.001
"""The pause between two trees, which leaves CPU time for the daemon."""


def make_revision(number: int) -> dict[str, bytes]:
    """
    Return the files of a revision; between revisions, paths appear, vanish, become
    folders.
    """
    chance = random.Random(number)
    paths = [f"pkg{count % 3}/module{count}.py" for count in range(8)]
    paths += [f"moving{chance.randrange(4)}/deep/down/file.py", f"odd{number % 2}.py"]
    paths.append("either" if number % 3 else "either/inside.py")
    return {
        path: mark(number, len(paths), path, chance.randrange(2_000)) for path in paths
    }


def mark(number: int, files: int, path: str, padding: int = 0) -> bytes:
    """
    Return the content of a file.
    """
    return f"{number} {files} {path}\n".encode() + b"#" * padding


@dataclass
class Seen:
    """
    The results of a reader.
    """

    trees: int = 0
    changes: int = 0
    """How often the revision differed from the previous one."""
    kept: int = 0
    """How often a previously resolved path was read again."""
    late: int = 0
    """Trees that took longer than snapshots are retained, and are not judged."""
    gone: int = 0
    """How often the link did not exist."""
    flaws: list[str] = field(default_factory=list)
    """Trees that were incomplete, or mixed two revisions."""


class Flaw(Exception):
    """
    A tree is not one complete revision.
    """


def read_revision(folder: str) -> int:
    """
    Read all files below a resolved path and return the number of their revision.

    A `.git` at the top, as in a git worktree, is ignored.

    Raises:
        Flaw: They are not all the files of one revision.
        OSError: A file disappeared.
    """
    revisions: dict[tuple[int, int], str] = {}
    files = 0
    for here, _, names in os.walk(folder, onerror=_fail):
        for name in names:
            path = os.path.relpath(os.path.join(here, name), folder)
            if path == ".git":
                continue
            with open(os.path.join(here, name), "rb") as file:
                said, of, marked = file.read().partition(b"\n")[0].decode().split(" ")
            if marked != path:
                raise Flaw(f"{path} has the content of {marked}")
            revisions[int(said), int(of)] = path
            files += 1
    if len(revisions) != 1:
        raise Flaw(f"mixed: {revisions}")
    ((number, count),) = revisions
    if count != files:
        raise Flaw(f"revision {number} has {files} of {count} files")
    return number


def observe(link: Path, retain_seconds: float) -> Seen:
    """
    Read trees through a link, and some of them again shortly before they can be pruned.
    """
    seen = Seen()
    held: deque[tuple[float, str, int]] = deque()
    last = -1

    def read(folder: str, resolved_at: float) -> int | None:
        try:
            return read_revision(folder)
        except (Flaw, OSError, ValueError) as error:
            if time.monotonic() - resolved_at < retain_seconds:
                age = time.monotonic() - resolved_at
                seen.flaws.append(f"{folder}, {age:.3f} s old: {error!r}")
            else:
                seen.late += 1
            return None

    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(PAUSE_SECONDS):
            resolved_at = time.monotonic()
            try:
                folder = str(link.parent / os.readlink(link))
            except OSError:
                seen.gone += 1
                continue
            number = read(folder, resolved_at)
            seen.trees += 1
            if number is None:
                continue
            seen.changes += number != last
            if number != last and len(held) < HELD:
                held.append((resolved_at, folder, number))
            last = number
            if held and time.monotonic() - held[0][0] > retain_seconds * 0.7:
                resolved_at, folder, number = held.popleft()
                again = read(folder, resolved_at)
                seen.kept += 1
                if again not in (None, number):
                    seen.flaws.append(f"{folder} was revision {number} and is {again}")
    return seen


def _fail(error: OSError) -> None:
    raise error


if __name__ == "__main__":
    print(json.dumps(asdict(observe(Path(sys.argv[1]), float(sys.argv[2])))))
