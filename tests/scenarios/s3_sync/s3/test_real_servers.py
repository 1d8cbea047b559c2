"""
Differences between real servers: ETags, checksums, encryption, order and spelling of
keys.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.scenarios.s3_sync.histories import Bucket
from tests.support.aws.checksums import header_value
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon
from tests.support.s3_sync.target_model import difference, expect, read_tree

# Both Unicode forms of names, names that percent-encoding could break, and orders by
# bytes.
NAMES = (
    "caf\u00e9.py", "cafe\u0301.py", "\uac00.py", "\u1100\u1161.py", "\u65e5\u672c\u8a9e.py",
    "\U0001f680.py", "\uffee.py", "a+b 100%.py", " a b .py", "&amp;'\".py", "A.py", "a.py",
)  # fmt: skip


@pytest.fixture
def filled(server: S3Server) -> Bucket:
    """A bucket with every kind of object that the server accepts."""
    bucket = Bucket(server, "dags")

    def put(key: str, body: bytes, **options: Any) -> None:
        # not every server supports every checksum and encryption
        with suppress(ClientError):
            server.client().put_object(
                Bucket=bucket.name, Key=key, Body=body, **options
            )
            bucket.objects[key] = body

    for name in NAMES:
        bucket.put(f"dags/{name}", name.encode())
    for name in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        body = f"# {name}\n".encode()
        put(
            f"dags/sums/{name}.py",
            body,
            **{f"Checksum{name}": header_value(name.lower(), body)},
        )
    for kind in ("AES256", "aws:kms"):
        put(
            f"dags/sealed/{kind[:3]}.py",
            f"# {kind}\n".encode(),
            ServerSideEncryption=kind,
        )
    bucket.put("dags/empty.py", b"")
    client = server.client()
    place = {"Bucket": bucket.name, "Key": "dags/big.bin"}
    place["UploadId"] = client.create_multipart_upload(**place)["UploadId"]
    big = bucket.objects["dags/big.bin"] = os.urandom(5 << 20)
    part = client.upload_part(**place, PartNumber=1, Body=big)
    client.complete_multipart_upload(
        **place, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    return bucket


def test_syncs_every_kind_of_object_that_a_server_accepts(
    server: S3Server, filled: Bucket, tmp_path: Path
) -> None:
    def is_right(daemon: Daemon) -> bool:
        return {} == difference(
            expect(filled.objects, "dags").files, read_tree(daemon.target)
        )

    with Daemon(server, filled.name, tmp_path / "dags", "dags") as daemon:
        daemon.wait_until_synced(60)
        assert is_right(daemon)
        assert daemon.status()["revision"]

        for old, new in (
            ("dags/big.bin", "dags/copy of big.bin"),
            ("dags/a.py", "dags/copied.py"),
        ):
            server.client().copy_object(
                Bucket=filled.name,
                Key=new,
                CopySource={"Bucket": filled.name, "Key": old},
            )
            filled.objects[new] = filled.objects[old]
        filled.delete("dags/a.py")
        filled.put("dags/A.py", b"# other\n")
        assert "changed" == daemon.sync()["result"]
        assert is_right(daemon)
        assert "unchanged" == daemon.sync()["result"]
        assert [] == daemon.stray_lines
