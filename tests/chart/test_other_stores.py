"""
The how-to's settings for other S3 stores are sufficient: endpoint, region and keys.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.chart import files
from tests.chart.sidecars import environment
from tests.support.aws.servers import RcloneServer

S3_SYNC = str(Path(sys.executable).parent / "s3-sync")
HOW_TO = files.SNIPPETS.parent / "docs/how-to/take-dags-from-another-s3-store.md"


@pytest.mark.parametrize(("store", "region"), [("MinIO", "us-east-1"), ("Google", "auto")])
def test_s3_sync_reads_a_store_that_checks_signatures(
    store: str, region: str, tmp_path: Path
) -> None:
    text = HOW_TO.read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (container,) = files.load("s3-sync.native.yaml")["dagProcessor"]["extraInitContainers"]
    added = environment(yaml.safe_load(block)) | {"AWS_REGION": region}
    settings = environment(container) | added
    with RcloneServer(tmp_path) as rclone:
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

    assert re.search(rf"^\| {store}.*`{region}`", text, re.MULTILINE)
    assert added.keys() == here.keys() - {"DEST_PATH"} | {"AWS_REGION"}
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "x = 1\n" == (tmp_path / "dags" / "a.py").read_text()
