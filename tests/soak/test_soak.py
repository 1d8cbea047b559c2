"""
A short soak finds no flaws and leaves nothing behind; its readers see a tree that is incomplete.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from soak.stations import tree
from tests.support.revisions import make_revision
from tests.support.s3_sync.publishing import write_files
from tests.support.waiting import wait_until

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


def test_a_mixed_tree_is_a_flaw(tmp_path: Path) -> None:
    write_files(tmp_path / "tree", make_revision(2))
    (tmp_path / "link").symlink_to("tree")
    reader = tree(tmp_path / "link")
    reader.start()
    wait_until(lambda: reader.reads > 1, "it reads")
    assert not reader.flaws

    (tmp_path / "tree/pkg0/module0.py").write_bytes(make_revision(1)["pkg0/module0.py"])

    wait_until(lambda: reader.flaws, "it has seen the flaw")
    reader.ended.set()
    reader.join()
    assert "mixed" in next(iter(reader.flaws))
