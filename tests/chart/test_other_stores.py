"""
The values for other S3 stores are enough for s3-sync: endpoint, region and keys.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart import checks, files
from tests.chart.sidecars import environment
from tests.support.servers import RcloneServer

S3_SYNC = str(Path(sys.executable).parent / "s3-sync")


@pytest.mark.parametrize("name", ["s3-sync.minio.yaml", "s3-sync.gcs.yaml"])
def test_s3_sync_reads_a_store_that_checks_signatures(name: str, tmp_path: Path) -> None:
    (container,) = checks.containers(files.load(name)["dagProcessor"])
    settings = environment(container)
    with RcloneServer() as rclone:
        rclone.client().create_bucket(Bucket=settings["AWS_BUCKET"])
        rclone.client().put_object(
            Bucket=settings["AWS_BUCKET"], Key=f"{settings['KEY_PATH']}/a.py", Body=b"x = 1\n"
        )
        here = {
            "AWS_ENDPOINT_URL_S3": rclone.endpoint,
            "AWS_ACCESS_KEY_ID": rclone.access_key,
            "AWS_SECRET_ACCESS_KEY": rclone.secret_key,
            "DEST_PATH": str(tmp_path / "dags"),
        }
        done = subprocess.run(
            [S3_SYNC],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "S3_SYNC_ONE_SHOT": "true",
                **settings,
                **here,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert here.keys() <= settings.keys()
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "x = 1\n" == (tmp_path / "dags" / "a.py").read_text()
