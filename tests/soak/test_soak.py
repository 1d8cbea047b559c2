"""
A short soak finds no flaws and leaves nothing behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.timeout(900)
def test_a_short_soak_finds_no_flaws_and_leaves_nothing_behind() -> None:
    with tempfile.TemporaryDirectory(prefix="soak-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # for the user of the database server
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-m", "soak", "--minutes", "1"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": name},
            capture_output=True,
            text=True,
            timeout=800,
        )

        assert 0 == done.returncode, done.stdout + done.stderr
        assert [] == [*folder.iterdir()]
        assert name not in Path("/proc/mounts").read_text()
