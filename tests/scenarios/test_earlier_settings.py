"""
A setting of an earlier version that means nothing today is refused, in the daemon and
in each command.

`…_DRY_RUN=true` once kept a sidecar from writing: one that starts all the same would
write.
"""

import re
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

PROCESSES = [
    (S3_SYNC, "S3_SYNC", S3, OF_S3, ""),
    (WRAPPER, "GIT_SYNC_WRAPPER", GIT, OF_GIT, ""),
    (KERBEROS_SIDECAR, "KERBEROS", KERBEROS, OF_ALL, ""),
    (SYNC_PERM, "SYNC_PERM", "", OF_PERM, ""),
    (S3_SYNC, "S3_SYNC", S3, "DRY_RUN", "check"),
    (S3_SYNC, "S3_SYNC", S3, "DRY_RUN", "publish FOLDER s3://box/dags"),
    (S3_SYNC, "S3_SYNC", S3, "DRY_RUN", "rollback s3://box/dags"),
    (S3_SYNC, "S3_SYNC", S3, "DRY_RUN", "prune-releases s3://box/dags"),
    (WRAPPER, "GIT_SYNC_WRAPPER", GIT, "DRY_RUN", "check"),
    (KERBEROS_SIDECAR, "KERBEROS", KERBEROS, "DRY_RUN", "check"),
    (SYNC_PERM, "SYNC_PERM", "", "DRY_RUN", "check"),
    (SYNC_PERM, "SYNC_PERM", "", "DRY_RUN", "diff"),
]


@pytest.mark.parametrize(
    ("program", "prefix", "settings", "names", "command"), PROCESSES
)
def test_each_setting_of_an_earlier_version_is_refused_and_nothing_is_written(
    tmp_path: Path,
    program: Path,
    prefix: str,
    settings: str,
    names: str,
    command: str,
) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "dag.py").touch()
    words, arguments = (
        text.replace("FOLDER", str(folder)).split() for text in (settings, command)
    )
    given = dict(word.split("=", 1) for word in words)
    given |= {f"{prefix}_{name}": "true" for name in names.split()}

    with SidecarProcess(program, given, tmp_path / "home", arguments) as process:
        code = process.wait_for_exit().code
        told = "\n".join([*process.stray_lines, *map(str, process.events)])

    assert code == 2, told
    for name in names.split():
        assert re.search(rf"{prefix}_{name}\b.*no longer exists.*remove it", told), told
    assert ["dag.py"] == [path.name for path in folder.iterdir()]
