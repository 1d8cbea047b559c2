"""
The demo passes all its checks, and leaves no files or processes behind.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from demo.kerberos import missing
from tests.support.git.git_sync import GIT_SYNC, skip_reason
from tests.support.program import own_port

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-W", "error::ResourceWarning", "-m", "demo"]


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


def test_demo_completes_every_step_and_cleans_up(tmp_path: Path) -> None:
    """
    It runs without standard input, as in some CI, and with an unreachable proxy.
    """
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *PYTHON],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(tmp_path),
            "HOME": str(tmp_path),
            "GIT_SYNC_BIN": str(GIT_SYNC),
            "HTTP_PROXY": f"http://127.0.0.1:{own_port()}",
            "http_proxy": f"http://127.0.0.1:{own_port()}",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "" == done.stderr
    tables = re.findall(r"^step .*?^total .*?$", done.stdout, re.MULTILINE | re.DOTALL)
    lines = "\n".join(tables).splitlines()
    assert [18, *([] if missing() else [7]), *([] if skip_reason() else [7])] == [
        len(re.findall(r" \d+\.\d\d s$", table, re.MULTILINE)) for table in tables
    ]
    assert "\x1b" not in done.stdout
    assert max(map(len, lines)) <= 100
    assert [] == list(tmp_path.iterdir())
    assert [] == commands_below(tmp_path)
