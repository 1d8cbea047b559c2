"""The download of one object, and the proofs that it is complete."""

import base64
import hashlib
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.tree.download import MEMORY_BYTES, Download, Proof, is_md5
from s3_sync.tree.staging import Staging
from tests.s3_sync.failing import failure
from tests.support.aws.checksums import digest, header_value

BODY = b"print('hello')\n"
MD5 = hashlib.md5(BODY).hexdigest()
OTHER = "0" * 32


@pytest.fixture
def opened() -> list[Staging]:
    """The staging files that were opened."""
    return []


@pytest.fixture
def open_staging(tmp_path: Path, opened: list[Staging]) -> Iterator[Callable[[], Staging]]:
    def begin() -> Staging:
        name = f"{len(opened)}.part"
        fd = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        opened.append(Staging(fd, name))
        return opened[-1]

    yield begin
    for staging in opened:
        staging.close()


@pytest.fixture
def download(open_staging: Callable[[], Staging]) -> Download:
    """A complete download of BODY."""
    whole = Download("dags/a.py", len(BODY), open_staging)
    whole.write(BODY)
    return whole


def base64_of(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


CHECKSUMS = {
    name: header_value(name, BODY) for name in ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
}


def raise_unused() -> Staging:
    raise AssertionError("small bodies stay in memory")


# --- memory and staging


def test_a_small_body_stays_in_memory(
    open_staging: Callable[[], Staging], opened: list[Staging]
) -> None:
    download = Download("k", MEMORY_BYTES, open_staging)
    download.write(b"a" * (MEMORY_BYTES - 1))
    download.write(b"b")

    assert download.staging is None and opened == []
    assert b"".join(download.blocks()) == b"a" * (MEMORY_BYTES - 1) + b"b"
    assert download.size_bytes == MEMORY_BYTES


def test_a_large_body_is_staged_completely_and_in_order(
    open_staging: Callable[[], Staging], opened: list[Staging]
) -> None:
    chunks = [os.urandom(300_000) for _ in range(11)]
    body = b"".join(chunks)
    download = Download("k", len(body), open_staging)

    for chunk in chunks:
        download.write(chunk)

    assert len(opened) == 1
    assert download.staging is opened[0]
    assert b"".join(download.blocks()) == body
    assert b"".join(download.blocks()) == body
    assert download.md5() == hashlib.md5(body).hexdigest()
    assert os.fstat(opened[0].fd).st_size == len(body)


def test_frees_memory_when_the_body_is_staged(open_staging: Callable[[], Staging]) -> None:
    download = Download("k", 2 * MEMORY_BYTES, open_staging)
    for _ in range(8):
        download.write(b"x" * (MEMORY_BYTES // 4))

    assert download._chunks == []


@pytest.mark.parametrize("first_bytes", [10, MEMORY_BYTES + 10])
def test_a_restart_discards_the_first_attempt(
    open_staging: Callable[[], Staging], opened: list[Staging], first_bytes: int
) -> None:
    for body in (b"y" * 5, os.urandom(MEMORY_BYTES + 5)):
        download = Download("k", 2 * MEMORY_BYTES, open_staging)
        download.write(b"x" * first_bytes)
        opened_before = len(opened)

        download.restart()
        download.write(body)

        assert download.size_bytes == len(body)
        assert b"".join(download.blocks()) == body
        assert len(opened) - opened_before <= 1


def test_refuses_bytes_beyond_the_listed_size(open_staging: Callable[[], Staging]) -> None:
    download = Download("dags/a.py", 5, open_staging)
    download.write(b"12345")

    found = failure(download.write, b"6")

    assert found.reason == "object_corrupt" and "more than the 5 bytes listed" in found.message


def test_a_full_disk_raises_oserror() -> None:
    def open_full() -> Staging:
        return Staging(os.open("/dev/full", os.O_RDWR), "full")

    download = Download("k", 2 * MEMORY_BYTES, open_full)
    download.write(b"x" * MEMORY_BYTES)

    with pytest.raises(OSError, match="No space left"):
        download.write(b"4")
    assert download.staging is not None
    download.staging.close()


def test_a_second_close_spares_a_reused_descriptor(open_staging: Callable[[], Staging]) -> None:
    staging = open_staging()
    fd = staging.fd
    staging.close()
    another = os.open("/dev/null", os.O_RDONLY)
    assert another == fd, "the number is used again"

    staging.close()

    os.fstat(another)
    os.close(another)


# --- proofs


def proof(download: Download, headers: dict[str, str], etag: str, *, is_aws: bool = True) -> Proof:
    found = download.compare(headers, etag, is_aws=is_aws)
    assert download.is_verified == (found in (Proof.CHECKSUM, Proof.MD5))
    return found


def test_an_md5_etag_proves_or_contradicts_the_body(download: Download) -> None:
    assert proof(download, {}, MD5) is Proof.MD5
    assert proof(download, {}, OTHER) is Proof.CONTRADICTED


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) + 1, 0])
def test_refuses_a_body_of_wrong_length(open_staging: Callable[[], Staging], length: int) -> None:
    download = Download("dags/a.py", max(length, len(BODY)), open_staging)
    download.write(BODY[:length])

    found = failure(proof, download, {"x-amz-checksum-sha256": CHECKSUMS["sha256"]}, MD5)

    assert found.reason == "object_corrupt"
    assert "bytes" in found.message and "listed" in found.message and "'dags/a.py'" in found.message


@pytest.mark.parametrize("name", CHECKSUMS)
def test_a_checksum_proves_the_body(download: Download, name: str) -> None:
    headers = {f"x-amz-checksum-{name}": CHECKSUMS[name], "x-amz-checksum-type": "FULL_OBJECT"}

    assert proof(download, headers, OTHER) is Proof.CHECKSUM
    assert proof(download, headers, "multipart-2") is Proof.CHECKSUM


@pytest.mark.parametrize("name", CHECKSUMS)
def test_refuses_a_wrong_checksum_even_if_the_md5_matches(download: Download, name: str) -> None:
    wrong = base64_of(b"\0" * len(base64.b64decode(CHECKSUMS[name])))

    found = failure(proof, download, {f"x-amz-checksum-{name}": wrong}, MD5)

    assert found.reason == "object_corrupt" and f"its {name} is" in found.message


@pytest.mark.parametrize(
    ("name", "check"), [("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")]
)
def test_crcs_equal_the_check_values_of_the_catalog(
    open_staging: Callable[[], Staging], name: str, check: str
) -> None:
    """The check value is the CRC of nine digits: https://reveng.sourceforge.io/crc-catalogue/"""
    download = Download("k", 9, open_staging)
    download.write(b"12345")
    download.write(b"6789")

    assert check == digest(name, b"123456789").hex()
    value = base64_of(bytes.fromhex(check))
    assert proof(download, {f"x-amz-checksum-{name}": value}, OTHER) is Proof.CHECKSUM


@pytest.mark.parametrize("name", ["crc32", "crc32c", "crc64nvme"])
@given(pieces=st.lists(st.binary(max_size=200), max_size=5))
def test_a_crc_does_not_depend_on_how_the_body_is_split(name: str, pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    download = Download("k", len(body), raise_unused)
    for piece in pieces:
        download.write(piece)

    said = {f"x-amz-checksum-{name}": header_value(name, body)}
    assert proof(download, said, OTHER) is Proof.CHECKSUM


def test_imports_the_crc_library_only_if_a_checksum_needs_it() -> None:
    program = (
        "import sys\n"
        "from s3_sync.tree.download import Download\n"
        "for name, there in (('crc32', False), ('crc64nvme', True)):\n"
        "    value = 'AAAAAA==' if name == 'crc32' else 'AAAAAAAAAAA='\n"
        "    one, headers = Download('k', 0, None), {f'x-amz-checksum-{name}': value}\n"
        "    assert one.compare(headers, 'x', is_aws=True).name == 'CHECKSUM'\n"
        "    assert ('anycrc' in sys.modules) is there\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_verifies_every_checksum_of_the_response(download: Download) -> None:
    names = {"crc32": "crc32", "sha256": "sha1"}
    headers = {f"x-amz-checksum-{name}": CHECKSUMS[other] for name, other in names.items()}

    assert "its sha256 is" in failure(proof, download, headers, MD5).message


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
    download: Download, headers: dict[str, str]
) -> None:
    assert proof(download, headers, MD5) is Proof.MD5
    assert proof(download, headers, OTHER) is Proof.CONTRADICTED
    assert proof(download, headers, "multipart-2") is Proof.NONE


def test_proves_a_staged_body(open_staging: Callable[[], Staging]) -> None:
    body = os.urandom(2 * MEMORY_BYTES + 1)
    download = Download("k", len(body), open_staging)
    download.write(body)
    headers = {"x-amz-checksum-crc32": base64_of(zlib.crc32(body).to_bytes(4, "big"))}

    assert proof(download, headers, OTHER) is Proof.CHECKSUM
    assert proof(download, {}, hashlib.md5(body).hexdigest()) is Proof.MD5


def test_proves_an_empty_body(open_staging: Callable[[], Staging]) -> None:
    download = Download("k", 0, open_staging)

    assert proof(download, {}, hashlib.md5(b"").hexdigest()) is Proof.MD5
    assert list(download.blocks()) == []
    assert proof(download, {"x-amz-checksum-crc32": "AAAAAA=="}, OTHER) is Proof.CHECKSUM


@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        (f"{MD5}-2", {}),
        (MD5[:-1], {}),
        (MD5.upper(), {}),
        ("0x8DC", {}),
        (MD5, {"x-amz-server-side-encryption": "aws:kms"}),
        (MD5, {"x-amz-server-side-encryption": "aws:kms:dsse"}),
        (MD5, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}),
        (MD5, {"x-amz-storage-class": "EXPRESS_ONEZONE"}),
    ],
)
def test_an_etag_that_is_not_an_md5_proves_nothing(
    download: Download, etag: str, headers: dict[str, str]
) -> None:
    assert not is_md5(etag, headers, is_aws=True)
    assert proof(download, headers, etag.replace(MD5[0], "0")) is Proof.NONE


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-amz-server-side-encryption": "AES256"}, {"x-amz-storage-class": "GLACIER_IR"}],
)
def test_recognizes_an_etag_that_is_an_md5(headers: dict[str, str]) -> None:
    assert is_md5(MD5, headers, is_aws=True)


def test_ignores_the_etag_of_an_encrypted_object_outside_aws(download: Download) -> None:
    headers = {"x-amz-server-side-encryption": "AES256"}

    assert proof(download, headers, OTHER, is_aws=False) is Proof.NONE
    assert proof(download, headers, OTHER, is_aws=True) is Proof.CONTRADICTED
