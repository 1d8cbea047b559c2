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
    if role:
        one.add_role()

    check(one, tmp_path / "roles.yaml", file)

    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("", "none"),  # Airflow 3 itself grants access_control
        ("roles: {team: {}}", "none"),
        ("roles: {team: {dags: [{id: a, permissions: [can_edit]}]}}", "file_dag_grant: 1"),
    ],
)
def test_counts_the_differences_that_the_daemon_would_fix(
    one: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, expected: str
) -> None:
    one.add_role()
    one.grant_role()
    one.sqlite.serialize("a", "1")
    one.sqlite.serialize("ruled", "1", {"team": {"__type": "set", "__var": ["can_read"]}})

    check(one, tmp_path / "roles.yaml", file)

    assert f"ok    differences    {expected}\n" in capsys.readouterr().out


def check(one: Sidecar, path: Path, file: str) -> None:
    """Check the tables on Airflow 3, with a roles file unless it is empty."""
    path.write_text(file)
    environ = one.site.environment(**({"SYNC_PERM_ROLES": str(path)} if file else {}))
    airflow = replace(AIRFLOW_3, command=str(one.site.command), python=sys.executable)
    checks = _Checks(load_settings(environ)[0], AirflowConfig(environ))

    assert checks.permissions(airflow, one.sqlite.address)
