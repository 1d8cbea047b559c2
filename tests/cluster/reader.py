"""
Runs in the pods instead of Airflow: reads the DAG files in its `dags_folder`, from the
environment or airflow.cfg, as Airflow does.

    reader.py read     reads the whole folder once, and prints the result
    reader.py follow   reads it again and again, and prints each change of the result
    reader.py idle     waits in another container

Each file begins with the line `# <revision> <number of its files> <path>`, so that the
reader detects truncated files and files of two revisions. A result is a line of JSON:
the number of the `revision`, or the `flaw`. Like Airflow, the last two exit with code 0
on SIGTERM.
"""

import configparser
import json
import os
import signal
import sys

END = {signal.SIGTERM}
PAUSE_SECONDS = 0.05
"""The pause between two passes, which leaves CPU time for other processes."""


def mark(number: int, files: int, path: str) -> bytes:
    """
    Return the content of one file of a revision.
    """
    return (
        f"# {number} {files} {path}\n".encode() + b"#" * (100 * number % 5_000) + b"\n"
    )


def look() -> dict[str, int | str]:
    """
    Read all files of the DAG folder; return their revision or the flaw.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read(os.path.join(os.environ["AIRFLOW_HOME"], "airflow.cfg"))
    wanted = os.environ.get("AIRFLOW__CORE__DAGS_FOLDER")
    try:
        # Resolved once per pass, as in the DAG processor, which keeps the paths of a
        # listing.
        folder = os.path.realpath(wanted or config["core"]["dags_folder"], strict=True)
        found = [
            read(os.path.join(here, name), folder)
            for here, _, names in os.walk(folder)
            for name in names
            if name.endswith(".py")
        ]
    except (OSError, ValueError) as error:
        return {"flaw": repr(error)}
    if len(set(found)) != 1 or found[0][1] != len(found):
        return {"flaw": f"{len(found)} files of {sorted(set(found))}"}
    return {"revision": found[0][0]}


def read(path: str, folder: str) -> tuple[int, int]:
    """
    Return the revision of a file and the number of files in that revision.

    Raises:
        ValueError: The file is truncated or belongs to another path.
    """
    with open(path, "rb") as file:
        content = file.read()
    number, files = map(int, content.split()[1:3])
    if content != mark(number, files, os.path.relpath(path, folder)):
        raise ValueError(f"{path} begins with {content[:80]!r}")
    return number, files


if __name__ == "__main__":
    if sys.argv[1] == "read":
        print(json.dumps(look()))
        sys.exit()
    # SIGTERM is blocked and waited for: this also works as process 1, and never cuts a
    # line.
    signal.pthread_sigmask(signal.SIG_BLOCK, END)
    last = None
    while not signal.sigtimedwait(END, PAUSE_SECONDS):
        if sys.argv[1] == "follow" and (seen := look()) != last:
            print(json.dumps(seen), flush=True)
            last = seen
    print(json.dumps({"stopped": True}))
