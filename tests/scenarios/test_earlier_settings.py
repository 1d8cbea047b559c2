"""
A setting of an earlier version that means nothing today is refused, in the daemon and
in each command.

`…_DRY_RUN=true` once kept a sidecar from writing: one that starts all the same would
write.
"""

from pathlib import Path

import pytest

from tests.support.airflow.sync_perm import SYNC_PERM
from tests.support.daemon import S3_SYNC, SidecarProcess
from tests.support.git.git_sync import WRAPPER
from tests.support.kerberos.site import KERBEROS_SIDECAR

# Complete settings, which `FOLDER` keeps apart from the machine.
S3 = """
AWS_BUCKET=box KEY_PATH=dags DEST_PATH=FOLDER/dags AWS_ENDPOINT_URL=http://127.0.0.1:1
AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_REGION=us-east-1
"""
GIT = "GITSYNC_REPO=http://127.0.0.1:1/dags.git GITSYNC_ROOT=FOLDER/root"
KERBEROS = "KERBEROS_KEYTAB=FOLDER/keytab KERBEROS_CCACHE=FOLDER/ccache"

# What version 0.2 documented, and today's version has no more.
OF_ALL = "DRY_RUN JITTER LOG_FORMAT"
OF_S3 = f"{OF_ALL} KEEP_REQUESTED_BYTES MAX_DELETE_HOLD MAX_KEYS"
OF_GIT = f"{OF_ALL} KEEP_REQUESTED KEEP_REQUESTED_BYTES MODE SECRET_STAGE"
OF_PERM = f"{OF_ALL} AIRFLOW AUTH_MANAGER TARGETED"

DAEMONS = [
    pytest.param(S3_SYNC, "S3_SYNC", S3, OF_S3, id="s3-sync"),
    pytest.param(WRAPPER, "GIT_SYNC_WRAPPER", GIT, OF_GIT, id="git-sync-wrapper"),
    pytest.param(KERBEROS_SIDECAR, "KERBEROS", KERBEROS, OF_ALL, id="kerberos"),
    pytest.param(SYNC_PERM, "SYNC_PERM", "", OF_PERM, id="sync-perm"),
]
COMMANDS = [
    (S3_SYNC, "S3_SYNC", S3, "check"),
    (S3_SYNC, "S3_SYNC", S3, "publish FOLDER s3://box/dags"),
    (S3_SYNC, "S3_SYNC", S3, "rollback s3://box/dags"),
    (S3_SYNC, "S3_SYNC", S3, "prune-releases s3://box/dags"),
    (WRAPPER, "GIT_SYNC_WRAPPER", GIT, "check"),
    (KERBEROS_SIDECAR, "KERBEROS", KERBEROS, "check"),
    (SYNC_PERM, "SYNC_PERM", "", "check"),
    (SYNC_PERM, "SYNC_PERM", "", "diff"),
]


def process_of(
    folder: Path, program: Path, settings: str, given: dict[str, str], command: str = ""
) -> SidecarProcess:
    words = settings.replace("FOLDER", str(folder)).split()
    complete = dict(word.split("=", 1) for word in words)
    arguments = command.replace("FOLDER", str(folder)).split()
    home = folder.parent / "home"
    return SidecarProcess(program, {**complete, **given}, home, arguments)


@pytest.mark.parametrize(("program", "prefix", "settings", "names"), DAEMONS)
def test_a_daemon_refuses_each_setting_of_an_earlier_version_and_writes_nothing(
    tmp_path: Path, program: Path, prefix: str, settings: str, names: str
) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    given = {f"{prefix}_{name}": "true" for name in names.split()}
    daemon = process_of(folder, program, settings, given)

    with daemon:
        code = daemon.wait_for_exit().code
        rejected = daemon.find_events("setting_rejected")
        problems = {event["setting"]: event["problem"] for event in rejected}

    assert code == 2, daemon.stray_lines
    assert given.keys() == problems.keys() & given.keys()
    assert all("remove it" in problems[name] for name in given), problems
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize(("program", "prefix", "settings", "command"), COMMANDS)
def test_a_command_refuses_a_dry_run_that_would_not_be_one(
    tmp_path: Path, program: Path, prefix: str, settings: str, command: str
) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "dag.py").touch()
    given = {f"{prefix}_DRY_RUN": "true"}
    process = process_of(folder, program, settings, given, command)

    with process:
        code = process.wait_for_exit().code
        printed = "\n".join([*process.stray_lines, *map(str, process.events)])

    assert code == 2, printed
    assert f"{prefix}_DRY_RUN" in printed
    assert "no longer exists" in printed
    assert ["dag.py"] == [path.name for path in folder.iterdir()]
