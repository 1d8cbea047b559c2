"""The bundle of a release: what is written, and what a reader takes from it."""

import io
import random
import subprocess
import sys
import zipfile
import zlib

import pytest

from s3_sync.release.bundle import GAP_BYTES, FileContent, IncomingContent, join, write_bundle
from s3_sync.release.format import RATIO_LIMIT, File
from s3_sync.s3.refusals import ObjectError
from tests.support.s3_sync.releases import make_release

FILES = {"a.py": b"print()\n" * 99, "b/empty": b"", "b/z.bin": random.Random(1).randbytes(5_000)}


def test_a_bundle_is_an_ordinary_zip_whose_offsets_follow_from_the_manifest() -> None:
    release = make_release(FILES, executable={"a.py"})

    offsets = release.manifest.locate()
    with zipfile.ZipFile(io.BytesIO(release.bundle_bytes)) as bundle:
        assert list(FILES) == bundle.namelist()
        for info in bundle.infolist():
            assert FILES[info.filename] == bundle.read(info)
            start = info.header_offset + 30 + len(info.filename.encode())
            assert offsets[info.filename] == start
            mode = 0o755 if info.filename == "a.py" else 0o644
            assert mode == info.external_attr >> 16 & 0o777
    assert release.bundle_bytes == make_release(FILES, executable={"a.py"}).bundle_bytes


def test_a_file_that_would_shrink_too_much_is_stored() -> None:
    files = write_bundle([FileContent("zeros", bytes(1 << 20))], io.BytesIO())

    assert 1 << 20 == files["zeros"].stored_bytes
    assert RATIO_LIMIT < (1 << 20) // len(zlib.compress(bytes(1 << 20)))


def received(file: File, stored: bytes, step: int = 7) -> bytes:
    data = bytearray()
    content = IncomingContent(file, data.extend)
    for at in range(0, len(stored), step):
        content.write(stored[at : at + step])
    content.finish()
    return bytes(data)


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


def file_of(data: bytes, stored: bytes) -> File:
    manifest = make_release({"a": data}).manifest
    return manifest.files["a"]._replace(stored_bytes=len(stored))


@pytest.mark.parametrize(
    "data", [b"", b"x", b"print()\n" * 99], ids=["empty", "stored", "deflated"]
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_content_arrives_in_pieces_of_any_size(data: bytes, step: int) -> None:
    stored = deflated(data) if len(data) > 10 else data

    assert data == received(file_of(data, stored), stored, step)


def test_stops_a_zip_bomb_at_its_declared_size() -> None:
    data = b"print()\n" * 99
    bomb = deflated(bytes(200 << 20))
    taken = bytearray()
    content = IncomingContent(file_of(data, deflated(data)), taken.extend)

    with pytest.raises(ObjectError, match="has more than 792 bytes"):
        content.write(bomb)

    assert len(taken) <= len(data)


STORED = deflated(b"print()\n" * 99)


@pytest.mark.parametrize(
    "stored",
    [STORED[:-1], STORED + b"x", deflated(b"print()\n" * 98), deflated(b"pront()\n" * 99),
     b"\xff" * len(STORED)],
    ids=["cut off", "more behind it", "shorter", "other content", "no stream"],
)  # fmt: skip
def test_refuses_content_that_differs_from_the_manifest(stored: bytes) -> None:
    with pytest.raises(ObjectError) as refused:
        received(file_of(b"print()\n" * 99, STORED), stored)

    assert "bundle_corrupt" == refused.value.reason


def test_the_zips_own_names_and_directory_are_never_used() -> None:
    """A reader cuts the bundle where the manifest says, whatever the headers contain."""
    release = make_release(FILES)
    bundle = release.bundle_bytes.replace(b"a.py", b"/etc").replace(b"PK\x01\x02", b"PK\xff\xff")
    offsets = release.manifest.locate()

    for path, file in release.manifest.files.items():
        stored = bundle[offsets[path] : offsets[path] + file.stored_bytes]
        assert FILES[path] == received(file, stored)


def test_neighbors_share_a_request() -> None:
    files = {name: File(name, "0" * 64, size, False, size) for name, size in (
        ("a", 10), ("b", 0), ("c", GAP_BYTES + 1), ("d", 5),
    )}  # fmt: skip
    offsets = {"a": 31, "b": 72, "c": 103, "d": 103 + GAP_BYTES + 32}

    groups = join([files["d"], files["a"], files["b"]], offsets)
    assert [["a"], ["d"]] == [[part.file.path for part in group] for group in groups]
    groups = join(files.values(), offsets)
    assert [["a", "c", "d"]] == [[part.file.path for part in group] for group in groups]


# --- memory

PEAK = """
import gzip, json, resource, sys
from s3_sync.release.format import *
from s3_sync.digest import revision_of
kind, version = sys.argv[1], f"sha256-{'0' * 64}"
rows = [("folder/%060d.py" % n, "%064x" % n, n, False) for n in range(FILES_LIMIT)]
facts = {"format": 3, "schema_version": 1, "version": version, "files": []}
text = {
    "legal": lambda: json.dumps(facts | {"files": [
        {"executable": x, "path": p, "sha256": s, "size": n, "stored": n} for p, s, n, x in rows
    ]}).encode(),
    "blanks": lambda: b" " * (INFLATED_LIMIT_BYTES - 2) + b"{}",
    "empty rows": lambda: b"[" + b"{}," * 590_000 + b"{}]",
    "empty lists": lambda: b"[" + b"[]," * 290_000 + b"[]]",
    "numbers": lambda: b"[" + b"12345678," * 590_000 + b"1]",
    "fields": lambda: json.dumps(dict.fromkeys(map(str, range(590_000)), 1)).encode(),
    "wide": lambda: ('"' + "x" * 8_000_000 + "\\U0001f600" + '"').encode(),
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


def test_a_hostile_manifest_takes_no_more_memory_than_the_largest_release() -> None:
    def peak(kind: str) -> int:
        command = [sys.executable, "-c", PEAK, kind]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    legal = peak("legal")
    hostile = {
        kind: peak(kind)
        for kind in ("blanks", "empty rows", "empty lists", "numbers", "fields", "wide", "bomb")
    }

    assert [] == [kind for kind, kilobytes in hostile.items() if kilobytes > 1.2 * legal], (
        legal,
        hostile,
    )
