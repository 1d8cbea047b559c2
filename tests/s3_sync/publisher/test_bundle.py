"""The bundle of a release: a valid zip, reproducible bytes, offsets that locate its files."""

import hashlib
import io
import os
import random
import stat
import subprocess
import sys
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.publisher.bundle import FileContent, write_bundle
from s3_sync.release.rows import RATIO_LIMIT, File

CONTENTS = [
    FileContent(".airflowignore", b"tests/\n"),
    FileContent("Q3 report (final).sql", b"select 1;\n" * 200),
    FileContent("a.py", b"print()\n", is_executable=True),
    FileContent("assets/logo.png", random.Random(5).randbytes(5_000)),
    FileContent("empty", b""),
    FileContent("new\nline", b"x" * 100),
    FileContent("zeros.bin", bytes(100_000)),
    FileContent("\u00fc/\U0001f600.txt", b"gr\xfc\xdf" * 30),
]


def bundle_of(contents: list[FileContent]) -> tuple[bytes, list[File]]:
    """Return a bundle and its rows."""
    out = io.BytesIO()
    rows = write_bundle(contents, out)
    return out.getvalue(), rows


def cut(bundle: bytes, row: File) -> bytes:
    """Extract a file as a reader does, from its row alone."""
    data = bundle[row.offset : row.offset + row.stored_bytes]
    assert len(data) == row.stored_bytes <= row.size_bytes
    return data if row.stored_bytes == row.size_bytes else zlib.decompress(data, -15)


def test_each_row_locates_the_bytes_of_its_file() -> None:
    bundle, rows = bundle_of(CONTENTS)

    for content, row in zip(CONTENTS, rows, strict=True):
        assert (content.path, content.data) == (row.path, cut(bundle, row))
        assert hashlib.sha256(content.data).hexdigest() == row.sha256
        assert ("0755" if content.is_executable else "0644") == row.mode


@given(st.lists(st.binary(max_size=400), max_size=6))
def test_any_file_content_round_trips_through_a_bundle(bodies: list[bytes]) -> None:
    contents = [FileContent(f"{number}", body) for number, body in enumerate(bodies)]

    bundle, rows = bundle_of(contents)

    assert bodies == [cut(bundle, row) for row in rows]


def test_a_bundle_is_a_valid_zip_with_one_date_and_the_file_modes() -> None:
    bundle, _ = bundle_of(CONTENTS)

    with zipfile.ZipFile(io.BytesIO(bundle)) as found:
        assert found.testzip() is None
        assert [content.path for content in CONTENTS] == found.namelist()
        assert CONTENTS[1].data == found.read(CONTENTS[1].path)
        modes = {info.filename: info.external_attr >> 16 for info in found.infolist()}
        assert {(1980, 1, 1, 0, 0, 0)} == {info.date_time for info in found.infolist()}
    assert (stat.S_IFREG | 0o755, stat.S_IFREG | 0o644) == (modes["a.py"], modes["empty"])


def test_the_bytes_of_a_bundle_depend_only_on_the_content() -> None:
    """Not on the process, the time zone, the locale, the umask or the order of a set."""
    script = (
        "import hashlib, io; from tests.s3_sync.publisher.test_bundle import CONTENTS, bundle_of;"
        "print(hashlib.sha256(bundle_of(CONTENTS)[0]).hexdigest())"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "PYTHONPATH": os.getcwd(),
    }

    other = subprocess.run(
        [sys.executable, "-c", f"import os; os.umask(0o777); {script}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert hashlib.sha256(bundle_of(CONTENTS)[0]).hexdigest() == other.stdout.strip()


def test_stores_content_that_deflate_cannot_shrink() -> None:
    _, rows = bundle_of(CONTENTS)
    by_path = {row.path: row for row in rows}

    assert by_path["assets/logo.png"].stored_bytes == 5_000
    assert by_path["Q3 report (final).sql"].stored_bytes < 200
    assert by_path["empty"].stored_bytes == 0


def test_stores_content_that_readers_would_refuse_as_a_zip_bomb() -> None:
    for size in (100, 1_000, 10_000, 100_000, 3 << 20):
        for body in (bytes(size), b"ab" * (size // 2), b"select 1;\n" * (size // 10)):
            bundle, [row] = bundle_of([FileContent("x", body)])
            assert row.size_bytes <= RATIO_LIMIT * row.stored_bytes
            assert body == cut(bundle, row)


def test_a_bundle_of_70000_files_is_a_valid_zip(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("takes 5 s: runs with make test-full")
    contents = [FileContent(f"{number:06d}", b"") for number in range(70_000)]

    bundle, rows = bundle_of(contents)

    with zipfile.ZipFile(io.BytesIO(bundle)) as found:
        assert 70_000 == len(found.namelist())
    assert rows[-1].offset == 70_000 * 36
