"""The bundle of a release: what is written, and what a reader takes from it."""

import io
import random
import subprocess
import sys
import zipfile
import zlib

import pytest

from s3_sync.publisher.folder import FileContent, write_bundle
from s3_sync.reasons import ObjectError
from s3_sync.release.format import RATIO_LIMIT, File, IncomingContent
from s3_sync.release.source import GAP_BYTES, join_ranges
from tests.support.s3_sync.releases import make_release

TEXT = b"print()\n" * 99
FILES = {"a.py": TEXT, "b/empty": b"", "b/z.bin": random.Random(1).randbytes(5_000)}


def test_a_bundle_is_an_ordinary_zip_whose_offsets_follow_from_the_manifest() -> None:
    release = make_release(FILES, executable={"a.py"})

    with zipfile.ZipFile(io.BytesIO(release.bundle_bytes)) as bundle:
        assert list(FILES) == bundle.namelist()
        for info in bundle.infolist():
            assert FILES[info.filename] == bundle.read(info)
            assert release.manifest.files[info.filename].offset == (
                info.header_offset + 30 + len(info.filename.encode())
            )
            assert (
                0o755 if info.filename == "a.py" else 0o644
            ) == info.external_attr >> 16 & 0o777
    assert release.bundle_bytes == make_release(FILES, executable={"a.py"}).bundle_bytes


def test_a_file_that_would_shrink_too_much_is_stored() -> None:

    assert (
        1 << 20
        == write_bundle([FileContent("zeros", bytes(1 << 20))], io.BytesIO())[
            "zeros"
        ].stored_bytes
    )
    assert RATIO_LIMIT < (1 << 20) // len(zlib.compress(bytes(1 << 20)))


def received(data: bytes, stored: bytes, step: int = 7) -> bytes:
    """
    Return what a reader takes for a file of this data that has these stored bytes.
    """
    file = (
        make_release({"a": data}).manifest.files["a"]._replace(stored_bytes=len(stored))
    )
    taken = bytearray()
    content = IncomingContent(file, taken.extend)
    try:
        for at in range(0, len(stored), step):
            content.write(stored[at : at + step])
        content.finish()
    finally:
        assert len(taken) <= len(data)
    return bytes(taken)


def deflated(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


@pytest.mark.parametrize("data", [b"", b"x", TEXT], ids=["empty", "stored", "deflated"])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_content_arrives_in_pieces_of_any_size(data: bytes, step: int) -> None:
    assert data == received(data, deflated(data) if len(data) > 10 else data, step)


STORED = deflated(TEXT)
WRONG = {
    "cut off": STORED[:-1],
    "more behind it": STORED + b"x",
    "shorter": deflated(TEXT[:-8]),
    "other content": deflated(b"pront()\n" * 99),
    "no stream": b"\xff" * len(STORED),
    "bomb": deflated(bytes(4 << 20))[: len(TEXT) - 1],
}


@pytest.mark.parametrize("name", WRONG)
def test_refuses_content_that_differs_from_the_manifest(name: str) -> None:
    with pytest.raises(ObjectError) as refused:
        received(TEXT, WRONG[name], 10_000)

    assert "bundle_corrupt" == refused.value.reason


def test_refuses_what_follows_the_end_before_it_piles_up() -> None:
    """As much as 256 MiB."""
    file = (
        make_release({"a": TEXT})
        .manifest.files["a"]
        ._replace(stored_bytes=len(STORED) + 8)
    )
    content = IncomingContent(file, lambda block: None)
    content.write(STORED)

    with pytest.raises(ObjectError, match="goes on after its end"):
        content.write(b"more")


def test_neighbors_share_a_request() -> None:
    sizes = {
        "a": (10, 31),
        "b": (0, 72),
        "c": (GAP_BYTES + 1, 103),
        "d": (5, GAP_BYTES + 135),
    }
    a, b, c, d = (
        File(name, "", size, False, size, at) for name, (size, at) in sizes.items()
    )

    assert [[a], [d]] == join_ranges([d, a, b])
    assert [[a, c, d]] == join_ranges([a, b, c, d])


# --- memory

PEAK = """
import gzip, json, resource, sys
from s3_sync.release.format import *
from s3_sync.names import release_id_of
kind, version = sys.argv[1], f"sha256-{'0' * 64}"
rows = [("folder/%060d.py" % n, "%064x" % n, n, False) for n in range(FILES_LIMIT)]
facts = {"format": 3, "schema_version": 1, "version": version, "files": []}
row = {"executable": False, "sha256": "0" * 64, "size": 1, "stored": 1}
text = {
    "legal": lambda: json.dumps(facts | {"files": [
        {"executable": x, "path": p, "sha256": s, "size": n, "stored": n} for p, s, n, x in rows
    ]}).encode(),
    "blanks": lambda: b" " * (INFLATED_LIMIT_BYTES - 2) + b"{}",
    "empty rows": lambda: b"[" + b"{}," * (BRACES_LIMIT - 1) + b"{}]",
    "numbers": lambda: b"[" + b"12345678," * 590_000 + b"1]",
    "folders": lambda: json.dumps(facts | {"files": [
        row | {"path": f"{n:05}" + "/a" * 90} for n in range(50_000)
    ]}).encode(),
    "bomb": lambda: bytes(200 << 20),
}[kind]()
del rows
data = gzip.compress(text, 1)
del text
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
try:
    parse_manifest(data, version)
except Invalid:
    pass
[line] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(line.split()[1])
"""
HOSTILE = ("blanks", "empty rows", "numbers", "folders", "bomb")


@pytest.mark.timeout(600)
def test_a_hostile_manifest_takes_no_more_memory_than_the_largest_release() -> None:
    def peak(kind: str) -> int:
        return int(
            subprocess.run(
                [sys.executable, "-c", PEAK, kind], capture_output=True, check=True
            ).stdout
        )

    legal = peak("legal")
    hostile = {kind: peak(kind) for kind in HOSTILE}

    assert [] == [kind for kind, kb in hostile.items() if kb > 1.2 * legal], (
        legal,
        hostile,
    )
