"""The download of one object, and the proofs that it is complete."""

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from s3_sync.download import Download, is_md5
from s3_sync.reasons import ObjectError
from s3_sync.volume import StagingFolder
from tests import Texts
from tests.support.aws.checksums import digest, header_value
from tests.support.raising import raised

BODY = b"print('hello')\n"
MD5 = hashlib.md5(BODY).hexdigest()
OTHER = "0" * 32


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[StagingFolder]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield StagingFolder(fd, 0o644, fsync=False)
    os.close(fd)


@pytest.fixture
def download(staging: StagingFolder) -> Iterator[Download]:
    """A complete download of BODY."""
    with closing(Download("dags/a.py", len(BODY), staging)) as whole:
        whole.write(BODY)
        yield whole


CHECKSUMS = {
    name: header_value(name, BODY)
    for name in ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
}


# --- staging


@pytest.mark.parametrize("first_bytes", [0, 3, 10])
def test_a_restart_discards_the_first_attempt(
    staging: StagingFolder, tmp_path: Path, first_bytes: int
) -> None:
    for body in (b"y" * 5, b""):
        with closing(Download("k", len(body), staging)) as download:
            with suppress(ObjectError):
                download.write(b"x" * first_bytes)

            download.restart()
            download.write(body)

            assert download.size_bytes == len(body)
            assert body == os.pread(
                download.finish({}, "x", must_match=True).fd, 100, 0
            )
            assert len(os.listdir(tmp_path)) <= 1


# --- proofs


def is_proven(
    download: Download, headers: Texts, etag: str, *, must_match: bool = False
) -> bool:
    return download.finish(headers, etag, must_match=must_match).is_verified


def test_refuses_a_body_of_another_length(staging: StagingFolder) -> None:
    download = Download("dags/a.py", 5, staging)
    download.write(b"1234")
    short = raised(
        ObjectError,
        is_proven,
        download,
        {"x-amz-checksum-sha256": header_value("sha256", b"1234")},
        MD5,
    )
    download.write(b"5")

    long = raised(ObjectError, download.write, b"6")

    assert ["object_corrupt"] * 2 == [short.reason, long.reason]
    assert (
        "'dags/a.py'" in short.message and "4 bytes, not the 5 listed" in short.message
    )
    assert "more than the 5 bytes listed" in long.message


@pytest.mark.parametrize("name", CHECKSUMS)
def test_a_checksum_proves_or_contradicts_the_body(
    download: Download, name: str
) -> None:
    header = f"x-amz-checksum-{name}"
    headers = {header: CHECKSUMS[name], "x-amz-checksum-type": "FULL_OBJECT"}
    assert is_proven(download, headers, OTHER)
    assert is_proven(download, headers, "multipart-2")

    wrong = base64.b64encode(b"\0" * len(base64.b64decode(CHECKSUMS[name]))).decode()
    found = raised(ObjectError, is_proven, download, {header: wrong}, MD5)

    assert found.reason == "object_corrupt" and f"its {name} is" in found.message


@pytest.mark.parametrize(
    ("name", "check"), [("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")]
)
def test_crcs_equal_the_check_values_of_the_catalog(
    staging: StagingFolder, name: str, check: str
) -> None:
    """
    The check value is the CRC of nine digits:
    https://reveng.sourceforge.io/crc-catalogue/
    """
    assert check == digest(name, b"123456789").hex()
    for body in (b"123456789", b"more than one block" * 5_000):
        with closing(Download("k", len(body), staging)) as download:
            download.write(body[:5])
            download.write(body[5:])

            assert is_proven(
                download, {f"x-amz-checksum-{name}": header_value(name, body)}, OTHER
            )


def test_verifies_every_checksum_of_the_response(download: Download) -> None:
    headers = {
        "x-amz-checksum-crc32": CHECKSUMS["crc32"],
        "x-amz-checksum-sha256": CHECKSUMS["sha1"],
    }

    assert (
        "its sha256 is"
        in raised(ObjectError, is_proven, download, headers, MD5).message
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-sha256": f"{CHECKSUMS['sha1']}-3"},
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA=-3"},
        {"x-amz-checksum-xxhash64": "AAAAAAAAAAA="},
        {"x-amz-checksum-sha256": ""},
    ],
    ids=["parts", "composite", "parts of another kind", "unknown", "empty"],
)
def test_ignores_checksums_that_cannot_be_recomputed(
    download: Download, headers: Texts
) -> None:
    assert is_proven(download, headers, MD5)
    assert "its MD5 is" in str(
        raised(ObjectError, is_proven, download, headers, OTHER, must_match=True)
    )
    assert not is_proven(download, headers, "multipart-2", must_match=True)


@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        (f"{MD5}-2", {}),
        (MD5[:-1], {}),
        (MD5.upper(), {}),
        ("0x8DC", {}),
        (MD5, {"x-amz-server-side-encryption": "aws:kms"}),
        (MD5, {"x-amz-server-side-encryption": "aws:kms:dsse"}),
    ],
)
def test_an_etag_that_is_not_an_md5_proves_nothing(
    download: Download, etag: str, headers: Texts
) -> None:
    assert not is_md5(etag, headers)
    assert not is_proven(download, headers, etag.replace(MD5[0], "0"), must_match=True)
