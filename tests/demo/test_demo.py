"""
The demos and a short soak pass all their checks, and leave no files or processes
behind.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from demo.kerberos import missing
from tests import ROOT
from tests.support.airflow.databases import skip_without_postgres
from tests.support.airflow.installed import Airflow, Version
from tests.support.git.git_sync import skip_reason
from tests.support.program import own_port


def played(*module: str, timeout_seconds: float) -> str:
    """
    Play one without standard input and with an unreachable proxy; return what it
    printed.
    """
    dead = f"http://127.0.0.1:{own_port()}"
    kept = {
        name: os.environ[name]
        for name in ("PATH", "GIT_SYNC_BIN")
        if name in os.environ
    }
    with tempfile.TemporaryDirectory(prefix="demo-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # for the user of the database server
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-m", *module],
            cwd=ROOT,
            env={
                **kept,
                "TMPDIR": name,
                "HOME": name,
                "HTTP_PROXY": dead,
                "http_proxy": dead,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )

        assert 0 == done.returncode, done.stdout + done.stderr
        assert "" == done.stderr
        assert [] == [*folder.iterdir()]
        assert [] == [one for one in commands() if name.encode() in one]
    return done.stdout


def commands() -> list[bytes]:
    """
    Return the environments of all processes.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def test_demo_completes_every_step_and_cleans_up() -> None:
    said = played("demo", timeout_seconds=240)

    assert 3 - bool(missing()) - bool(skip_reason()) == said.count("all steps passed")
    assert "\x1b" not in said


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.timeout(1_600)
@pytest.mark.parametrize("version", ["3", "2.11"])
def test_demo_with_airflow_completes_every_step_and_cleans_up(version: Version) -> None:
    skip_without_postgres()
    # here, because an installation leaves files in HOME
    Airflow.install_or_skip(version)

    assert "all steps passed" in played("demo.airflow", version, timeout_seconds=1_500)


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.timeout(900)
def test_a_short_soak_finds_no_flaws_and_cleans_up() -> None:
    played("soak", "--minutes", "1", timeout_seconds=800)
