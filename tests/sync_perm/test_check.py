"""
`sync-perm check`, on SQLite; tests/scenarios/sync_perm/test_process.py runs the command.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sync_perm.airflow_config import AirflowConfig
from sync_perm.check import _Checks
from sync_perm.settings import load_settings
from tests.sync_perm.given import AIRFLOW_3
from tests.sync_perm.sidecar import Sidecar


@pytest.mark.parametrize(
    ("role", "file", "expected"),
    [
        (False, "", "??    needed?        hardly: "),
        (True, "", "ok    needed?        for roles only: "),
        (False, "roles: {}", "ok    needed?        yes: Airflow does not apply the roles file\n"),
    ],
)
def test_reports_whether_the_sidecar_is_needed_without_failing(
    one: Sidecar,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    role: bool,
    file: str,
    expected: str,
) -> None:
    path = tmp_path / "roles.yaml"
    path.write_text(file)
    if role:
        one.add_role()
    environ = one.site.environment(**({"SYNC_PERM_ROLES": str(path)} if file else {}))
    airflow = replace(AIRFLOW_3, command=str(one.site.command), python=sys.executable)
    checks = _Checks(load_settings(environ)[0], AirflowConfig(environ))

    is_good = checks.permissions(airflow, one.sqlite.address)

    out = capsys.readouterr().out
    assert is_good, out
    assert expected in out
