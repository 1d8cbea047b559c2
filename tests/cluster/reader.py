"""
What runs in the pods instead of Airflow: it reads DAG files where airflow.cfg says that they are.

    reader.py idle     does nothing
    reader.py watch    reads the whole folder again and again, and prints what it sees
    reader.py read     prints what it sees, once

Each file begins with one line, `# <revision> <number of files of it> <path>`, so that a reader
notices half a file, and files of two revisions. What is seen is printed as a line of JSON: the
number of the `revision`, or the `flaw`. All end on SIGTERM with code 0, as Airflow does.
"""

from __future__ import annotations

import configparser
import json
import os
import signal
import sys

PAUSE_SECONDS = 0.05
"""Between two passes over the folder, so that other processes get the processor too."""
END = {signal.SIGTERM}


def mark(number: int, files: int, path: str) -> bytes:
    """
    Return the content of one file of a revision.
    """
    return f"# {number} {files} {path}\n".encode() + b"#" * (100 * number % 5_000) + b"\n"


def look() -> dict[str, int | str]:
    """
    Read all files of the DAG folder; return their revision, or what is wrong with them.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read(os.path.join(os.environ["AIRFLOW_HOME"], "airflow.cfg"))
    try:
        # Once for a whole pass, as the DAG processor does: it keeps the path of a listing.
        folder = os.path.realpath(config["core"]["dags_folder"], strict=True)
        found = [read(os.path.join(here, name), folder) for here, name in walk(folder)]
    except (OSError, ValueError) as error:
        return {"flaw": repr(error)}
    if len(set(found)) != 1 or found[0][1] != len(found):
        return {"flaw": f"{len(found)} files of {sorted(set(found))}"}
    return {"revision": found[0][0]}


def walk(folder: str) -> list[tuple[str, str]]:
    """
    Return all files below a folder that Airflow would look at: where they are, and their names.
    """
    found = [(here, name) for here, _, names in os.walk(folder) for name in names]
    return [(here, name) for here, name in found if name.endswith(".py")]


def read(path: str, folder: str) -> tuple[int, int]:
    """
    Return of which revision a file is, and how many files that has.

    Raises:
        ValueError: The file is not whole, or another one's.
    """
    with open(path, "rb") as file:
        content = file.read()
    number, files = map(int, content.split()[1:3])
    if content != mark(number, files, os.path.relpath(path, folder)):
        raise ValueError(f"{path} begins with {content[:80]!r}")
    return number, files


def watch() -> None:
    """
    Print each thing that is seen once, as long as it is seen, until SIGTERM.
    """
    last: dict[str, int | str] = {}
    while not signal.sigtimedwait(END, PAUSE_SECONDS):
        seen = look()
        if seen != last:
            print(json.dumps(seen), flush=True)
        last = seen


if __name__ == "__main__":
    # Blocked and waited for: process 1 of a container gets it too, and no line is cut by it.
    signal.pthread_sigmask(signal.SIG_BLOCK, END)
    match sys.argv[1]:
        case "read":
            print(json.dumps(look()))
            sys.exit()
        case "watch":
            watch()
        case _:
            signal.sigwait(END)
    print(json.dumps({"stopped": True}))
