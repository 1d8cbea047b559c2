"""
Revisions whose files all contain the revision, and a process that reads whole
revisions.

Each file starts with a line `# <revision> <number of the revision's files> <path>`.
`python revisions.py LINK RETAIN_SECONDS` repeatedly resolves the link and reads all
files below it until standard input closes. Then it prints its results as one line of
JSON.

In the pods of a cluster, it runs instead of Airflow, and reads the DAG files in the
`dags_folder` of the environment or airflow.cfg, as Airflow does:

    revisions.py read     reads the whole folder once, and prints the result
    revisions.py follow   reads it again and again, and prints each change of the result
    revisions.py idle     waits in another container

A result is a line of JSON: the number of the `revision`, or the `flaw`. Like Airflow,
the last two exit with code 0 on SIGTERM.
"""

import configparser
import json
import os
import random
import selectors
import signal
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

END = {signal.SIGTERM}
POD_PAUSE_SECONDS = 0.05
"""The pause between two passes in a pod, which leaves CPU time for other processes."""
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
    paths.append("either.py" if number % 3 else "either.py/inside.py")
    return {path: mark(number, len(paths), path) for path in paths}


def mark(number: int, files: int, path: str) -> bytes:
    """
    Return the content of a file.
    """
    return (
        f"# {number} {files} {path}\n".encode()
        + (b"#" * (100 * number % 5_000))
        + b"\n"
    )


@dataclass
class Seen:
    """
    The results of a reader.
    """

    trees: int = 0
    changes: int = 0
    """How often the revision differed from the previous one."""
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

    A `.git` at the top, as in a git worktree, is ignored, like all that is no Python.

    Raises:
        Flaw: They are not all the files of one revision, or one is truncated.
        OSError: A file disappeared.
    """
    revisions: dict[tuple[int, int], str] = {}
    files = 0
    for here, _, names in os.walk(folder, onerror=_fail):
        for name in names:
            path = os.path.relpath(os.path.join(here, name), folder)
            if not name.endswith(".py"):
                continue
            with open(os.path.join(here, name), "rb") as file:
                content = file.read()
            said, of = map(int, content.split()[1:3])
            if content != mark(said, of, path):
                raise Flaw(f"{path} begins with {content[:80]!r}")
            revisions[said, of] = path
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
            age = time.monotonic() - resolved_at
            if age < retain_seconds:
                seen.flaws.append(f"{folder}, {age:.3f} s old: {error!r}")
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
                if again not in (None, number):
                    seen.flaws.append(f"{folder} was revision {number} and is {again}")
    return seen


def _fail(error: OSError) -> None:
    raise error


def look() -> dict[str, int | str]:
    """
    Read all files of Airflow's DAG folder; return their revision or the flaw.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read(os.path.join(os.environ["AIRFLOW_HOME"], "airflow.cfg"))
    wanted = os.environ.get("AIRFLOW__CORE__DAGS_FOLDER")
    try:
        # Resolved once per pass, as in the DAG processor, which keeps the paths of a
        # listing.
        folder = os.path.realpath(wanted or config["core"]["dags_folder"], strict=True)
        return {"revision": read_revision(folder)}
    except (Flaw, OSError, ValueError) as error:
        return {"flaw": repr(error)}


def run_in_pod(kind: str) -> None:
    """
    Print what Airflow would find: once, or each change until SIGTERM.
    """
    if kind == "read":
        print(json.dumps(look()))
        return
    # SIGTERM is blocked and waited for: this also works as process 1, and never cuts a
    # line.
    signal.pthread_sigmask(signal.SIG_BLOCK, END)
    last = None
    while not signal.sigtimedwait(END, POD_PAUSE_SECONDS):
        if kind == "follow" and (seen := look()) != last:
            print(json.dumps(seen), flush=True)
            last = seen
    print(json.dumps({"stopped": True}))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        run_in_pod(sys.argv[1])
        sys.exit()
    print(json.dumps(asdict(observe(Path(sys.argv[1]), float(sys.argv[2])))))
