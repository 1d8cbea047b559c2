"""
The demo keeps what it promises, and leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.git_server import skip_reason
from tests.support.kdc import MISSING

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-W", "error::ResourceWarning", "-m", "demo"]


def run_demo(tmp_path: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """
    Run the demo with temporary files in a folder of the test.
    """
    return subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def commands_below(folder: Path) -> list[str]:
    """
    Return the command lines of processes that mention a folder in their environment.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if os.fsencode(folder) in environment:
            found.append(command)
    return found


def test_demo_plays_every_step_and_cleans_up(tmp_path: Path) -> None:
    """
    Also where there is no standard input, as in some CI.
    """
    done = run_demo(tmp_path, ["sh", "-c", 'exec "$@" <&-', "sh", *PYTHON])

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "" == done.stderr
    tables = re.findall(r"^step .*?^everything.*?$", done.stdout, re.MULTILINE | re.DOTALL)
    lines = "\n".join(tables).splitlines()
    assert [14, *([] if MISSING else [7]), *([] if skip_reason() else [7])] == [
        len(re.findall(r" \d+\.\d\d s$", table, re.MULTILINE)) for table in tables
    ]
    assert "\x1b" not in done.stdout
    assert max(map(len, lines)) <= 100
    assert [] == list(tmp_path.iterdir())
    assert [] == commands_below(tmp_path)


def test_demo_fails_with_the_daemons_log_when_a_promise_does_not_hold(tmp_path: Path) -> None:
    broken = (
        "import sys, demo.s3_sync, demo.__main__ as main;"
        "demo.s3_sync.wait_until_equal = lambda *_: demo.s3_sync.check(False, 'a promise');"
        "sys.exit(main.main())"
    )

    done = run_demo(tmp_path, [sys.executable, "-c", broken])

    assert 1 == done.returncode
    assert "FAILED: a file changes: not true: a promise" in done.stdout
    assert "sidecar_started" in done.stdout
    assert [] == list(tmp_path.iterdir())
    assert [] == commands_below(tmp_path)
