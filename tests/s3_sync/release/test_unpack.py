"""Extracting files from a bundle: each is complete and correct, or refused."""

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3_sync.release.rows import File
from s3_sync.release.unpack import Cutter, Unpacking
from s3_sync.s3.refusals import ObjectError
from s3_sync.tree.staging import Staged
from s3_sync.tree.target import Target
from tests.support.raising import raised
from tests.support.s3_sync.releases import Release, make_release

FILES = {
    "a/one.py": b"x = 1\n" * 40,
    "a/two.py": os.urandom(300),
    "b/three.py": b"print('three')\n" * 9,
    "c.py": bytes(200_000) + b"end\n",
}
RELEASE = make_release(FILES, executable={"a/two.py"})


def rows(release: Release, *paths: str) -> list[File]:
    """Return files with their offsets in the bundle; without paths, all files."""
    files = release.manifest.files
    return release.manifest.locate(files[path] for path in (paths or files))


def row(path: str) -> File:
    return rows(RELEASE, path)[0]


def unpack(row: File, data: bytes, target: Target) -> None:
    unpacking = Unpacking(row, target)
    try:
        unpacking.write(data)
        unpacking.finish()
    finally:
        unpacking.discard()


class Knife:
    """A cutter, and the files that it has staged."""

    def __init__(self, target: Target, *paths: str, release: Release = RELEASE) -> None:
        self.staged: list[Staged] = []
        self.body = release.bundle_bytes
        self.cutter = Cutter(rows(release, *paths), len(self.body), target, self.staged.append)

    def begin(self, first: int | None = None) -> int:
        """Begin a response at the requested offset, or at another one; return the offset."""
        start = int(self.cutter.headers()["range"].split("=")[1].split("-")[0])
        start = start if first is None else first
        self.cutter.check({"content-range": f"bytes {start}-9/{len(self.body)}"})
        return start

    def cut(self, body: bytes) -> None:
        """Pass a bundle to the cutter, from the requested offset to the end."""
        self.cutter.write(body[self.begin() :])
        self.cutter.finish()

    def contents(self, target: Target) -> dict[str, bytes]:
        folder = Path(target.path, ".s3-sync/staging")
        return {one.path: (folder / one.name).read_bytes() for one in self.staged}


@pytest.fixture
def knife(target: Target) -> Iterator[Knife]:
    knife = Knife(target)
    yield knife
    knife.cutter.restart()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_extracts_files_from_pieces_of_any_size(target: Target, sizes: list[int]) -> None:
    knife = Knife(target)
    at, turn = knife.begin(), 0
    while at < len(knife.body):
        size = sizes[turn % len(sizes)]
        knife.cutter.write(knife.body[at : at + size])
        at, turn = at + size, turn + 1
    knife.cutter.finish()

    assert FILES == knife.contents(target)


def test_extracts_the_requested_files_from_a_complete_bundle(target: Target) -> None:
    """A server without ranges sends all files."""
    knife = Knife(target, "a/two.py", "c.py")
    knife.cutter.check({"content-length": str(len(knife.body))})
    knife.cutter.write(knife.body)
    knife.cutter.finish()

    assert {path: FILES[path] for path in ("a/two.py", "c.py")} == knife.contents(target)
    assert [0o755, 0o644] == [one.managed.mode & 0o777 for one in knife.staged]


def test_resumes_at_the_incomplete_file_after_a_lost_connection(
    knife: Knife, target: Target
) -> None:
    start = knife.begin()
    second = row("a/two.py")
    knife.cutter.write(knife.body[start : second.offset + 20])
    knife.cutter.restart()

    assert second.offset == knife.begin()
    knife.cutter.write(knife.body[second.offset :])
    knife.cutter.finish()
    assert FILES == knife.contents(target)


def test_a_connection_lost_after_the_last_file_is_harmless(knife: Knife, target: Target) -> None:
    start = knife.begin()
    knife.cutter.write(knife.body[start:])
    knife.cutter.restart()
    knife.cut(knife.body)

    assert FILES == knife.contents(target)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(RELEASE.bundle_bytes) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_yields_a_wrong_file(target: Target, place: int, bit: int) -> None:
    knife = Knife(target)
    body = bytearray(knife.body)
    body[place] ^= 1 << bit
    start = knife.begin()
    with suppress(ObjectError):
        knife.cutter.write(bytes(body[start:]))
        knife.cutter.finish()
    knife.cutter.restart()

    found = knife.contents(target)
    assert found == {path: FILES[path] for path in found}


def test_ignores_names_and_file_types_in_the_directory_of_the_zip(target: Target) -> None:
    knife = Knife(target)
    body = bytearray(knife.body)
    with zipfile.ZipFile(io.BytesIO(knife.body)) as archive:
        names = [entry.filename.encode() for entry in archive.infolist()]
    for name, kind in zip(names, (0o120777, 0o020666, 0o010666, 0o040777), strict=True):
        at = body.rindex(name)  # in the central directory
        body[at - 8 : at - 4] = (kind << 16).to_bytes(4, "little")
        body[at : at + len(name)] = (b"../" * len(name))[: len(name)]
    knife.cut(bytes(body))

    assert FILES == knife.contents(target)


def test_refuses_a_bundle_that_ends_early(knife: Knife) -> None:
    start = knife.begin()
    knife.cutter.write(knife.body[start : row("c.py").offset])

    with pytest.raises(ObjectError, match=r"ends before 'c\.py'"):
        knife.cutter.finish()


@pytest.mark.parametrize(
    "headers",
    [
        {"content-range": "bytes 0-9/4711"},
        {"content-length": "4711"},
        {"content-range": f"bytes 2000-3000/{len(RELEASE.bundle_bytes)}"},
    ],
)
def test_refuses_another_bundle_or_another_range(knife: Knife, headers: dict[str, str]) -> None:
    error = raised(ObjectError, knife.cutter.check, headers)

    assert "bundle_corrupt" == error.reason


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sha256": "0" * 64}, "its SHA-256 is"),
        ({"size_bytes": 239}, "more than 239 bytes"),
        ({"size_bytes": 241}, "240 bytes, not 241"),
    ],
)
def test_refuses_a_file_that_contradicts_its_row(
    target: Target, changes: dict[str, object], why: str
) -> None:
    file = row("a/one.py")._replace(**changes)  # type: ignore[arg-type]
    with pytest.raises(ObjectError, match=why):
        unpack(file, RELEASE.bundle_bytes[file.offset : file.offset + file.stored_bytes], target)

    assert [] == os.listdir(f"{target.path}/.s3-sync/staging")


def test_refuses_a_stream_with_missing_or_extra_bytes(target: Target) -> None:
    file = row("a/one.py")
    data = RELEASE.bundle_bytes[file.offset : file.offset + file.stored_bytes]
    for piece in (data[:-1], data + b"\0"):
        with pytest.raises(ObjectError, match="corrupt"):
            unpack(file, piece, target)


def test_stops_a_zip_bomb_at_its_declared_size(target: Target) -> None:
    file = row("c.py")
    body = RELEASE.bundle_bytes[file.offset : file.offset + file.stored_bytes]

    with pytest.raises(ObjectError, match="more than 1000 bytes"):
        unpack(file._replace(size_bytes=1_000), body, target)
