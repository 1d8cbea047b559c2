"""Differences between real servers: ETags, checksums, encryption, order and spelling of keys."""

import os
from pathlib import Path
from typing import Any
from unicodedata import is_normalized

import pytest
from botocore.exceptions import ClientError

from tests.support.aws.checksums import header_value
from tests.support.aws.servers import S3Server
from tests.support.daemon import Daemon
from tests.support.s3_sync.target_model import difference, expect, read_tree

PART_BYTES = 5 << 20
# Both Unicode forms of names, names that percent-encoding could break, and orders by bytes.
NAMES = (
    "caf\u00e9.py",
    "cafe\u0301.py",
    "\uac00.py",
    "\u1100\u1161.py",
    "\u65e5\u672c\u8a9e.py",
    "\U0001f680.py",
    "\uffee.py",
    "a+b 100%.py",
    " a b .py",
    "&amp;'\".py",
    "A.py",
    "a.py",
)
# Some servers reject these names, others rename them.
ODD_NAMES = ("a//b.py", "./dot.py", "x/../up.py", "new\nline.py", "tab\t.py", "back\\slash.py")
CHECKSUMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")


class Filled:
    """A bucket, and the files that the server accepted."""

    def __init__(self, server: S3Server) -> None:
        self.name = server.new_bucket("real")
        self.files: dict[str, bytes] = {}
        self.refused: list[str] = []
        self._client: Any = server.client()

    def put(self, path: str, body: bytes, **options: Any) -> None:
        key = {"Bucket": self.name, "Key": f"dags/{path}"}
        try:
            self._client.put_object(Body=body, **key, **options)
            self.files[path] = body
        except ClientError:  # not every server supports every checksum and encryption
            self.refused.append(path)

    def put_in_parts(self, path: str, body: bytes) -> None:
        place = {"Bucket": self.name, "Key": f"dags/{path}"}
        place["UploadId"] = self._client.create_multipart_upload(**place)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(body), PART_BYTES), 1):
            piece = body[start : start + PART_BYTES]
            answer = self._client.upload_part(**place, PartNumber=number, Body=piece)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        self.files[path] = body

    def copy(self, old: str, new: str) -> None:
        source = {"Bucket": self.name, "Key": f"dags/{old}"}
        self._client.copy_object(Bucket=self.name, Key=f"dags/{new}", CopySource=source)
        self.files[new] = self.files[old]

    def listed(self) -> dict[str, bytes]:
        """Return all objects that the server lists."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        keys = [item["Key"] for page in pages for item in page["Contents"]]
        return {
            key: self._client.get_object(Bucket=self.name, Key=key)["Body"].read() for key in keys
        }

    def delete(self, path: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=f"dags/{path}")
        del self.files[path]


@pytest.fixture
def filled(server: S3Server) -> Filled:
    """A bucket with every kind of object that the server accepts."""
    bucket = Filled(server)
    for name in NAMES:
        if server.name != "rclone" or is_normalized("NFC", name):  # rclone stores both forms as one
            bucket.put(name, name.encode())
    for name in CHECKSUMS:
        body = f"# {name}\n".encode()
        promise = {f"Checksum{name}": header_value(name.lower(), body)}
        bucket.put(f"sums/{name}.py", body, **promise)
    for kind in ("AES256", "aws:kms"):
        body = f"# {kind}\n".encode()
        bucket.put(f"sealed/{kind[:3]}.py", body, ServerSideEncryption=kind)
    bucket.put("empty.py", b"")
    bucket.put_in_parts("big.bin", os.urandom(PART_BYTES + 1))
    print(f"{server.name} refuses {bucket.refused}")
    return bucket


def test_syncs_every_kind_of_object_that_a_server_accepts(
    server: S3Server, filled: Filled, tmp_path: Path
) -> None:
    with Daemon(server, filled.name, tmp_path / "dags", "dags") as daemon:
        daemon.wait_until_synced(60)
        assert [] == difference(filled.files, read_tree(daemon.target))
        assert daemon.status()["revision"]

        filled.copy("big.bin", "copy of big.bin")
        filled.copy("a.py", "copied.py")
        filled.delete("a.py")
        filled.put("A.py", b"# other\n")
        assert "changed" == daemon.sync()["result"]
        assert [] == difference(filled.files, read_tree(daemon.target))
        assert "unchanged" == daemon.sync()["result"]
        assert [] == daemon.stray_lines


def test_syncs_or_skips_unusual_names_as_they_are_listed(server: S3Server, tmp_path: Path) -> None:
    """Each listed key is published at its path or reported as skipped, and nothing else exists."""
    bucket = Filled(server)
    bucket.put("a.py", b"a = 1\n")
    for name in ODD_NAMES:
        bucket.put(name, name.encode())
    expected = expect(bucket.listed(), "dags")
    with Daemon(server, bucket.name, tmp_path / "dags", "dags") as daemon:
        daemon.wait_until_synced(60)
        assert [] == difference(expected.files, read_tree(daemon.target))
        skipped = {f"dags/{path}": reason for path, reason in expected.skipped.items()}
        assert skipped == daemon.status()["details"].get("keys_skipped", {})
        assert daemon.status()["revision"]
