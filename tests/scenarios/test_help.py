"""
What each command line says without any setting.
"""

from pathlib import Path

import pytest

from tests.support.airflow.sync_perm import SYNC_PERM
from tests.support.daemon import S3_SYNC, SidecarProcess
from tests.support.git.git_sync import WRAPPER
from tests.support.kerberos.site import KERBEROS_SIDECAR


@pytest.mark.parametrize("program", [S3_SYNC, WRAPPER, KERBEROS_SIDECAR, SYNC_PERM])
def test_help_of_check_needs_no_settings(tmp_path: Path, program: Path) -> None:
    with SidecarProcess(program, {}, tmp_path, ("check", "--help")) as process:
        assert 0 == process.wait_for_exit().code, process.log()
        assert "usage:" in "\n".join(process.stray_lines)
