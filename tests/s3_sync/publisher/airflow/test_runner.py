"""The program that loads each file of a folder in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

# The file's process has ended, and the timer ends before the runner can stop it.
TIMER_ENDS_LATE = """
import json, os, signal, sys
from s3_sync.publisher.airflow.runner import load_apart

wait = os.waitpid

def wait_too_long(pid, options):
    found = wait(pid, options)
    signal.raise_signal(signal.SIGALRM)
    return found

os.waitpid = wait_too_long

class Loader:
    def load(self, path):
        return {"file": path, "dags": ["a"], "errors": {}}

with open(sys.argv[1], "a") as answers:
    def answer(facts):
        answers.write(json.dumps(facts) + "\\n")
        answers.flush()

    load_apart(Loader(), "a.py", answers.fileno(), answer, 60)
"""


def test_a_file_that_ends_at_the_moment_of_its_timeout_keeps_its_answer(tmp_path: Path) -> None:
    answers = tmp_path / "answers"

    command = [sys.executable, "-c", TIMER_ENDS_LATE, str(answers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)
    assert [{"file": "a.py", "dags": ["a"], "errors": {}}] == [
        json.loads(line) for line in answers.read_text().splitlines()
    ]
