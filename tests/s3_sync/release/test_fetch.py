"""Bringing files out of a bundle: each is complete and correct, or refused."""

import io
import math
import os
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3_sync.folder.folder import Folder
from s3_sync.release.fetch import Cutter
from s3_sync.release.rows import File
from s3_sync.s3.refusals import ObjectError
from s3_sync.work import Work
from sidecar_runtime.fence import Fence
from tests.s3_sync.folder.handling import staged
from tests.support.raising import raised
from tests.support.s3_sync.releases import Release, make_release
from tests.support.s3_sync.scripted import published

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


class Knife:
    """A cutter of the example release, which puts files into a folder."""

    def __init__(self, target: Folder, *files: File) -> None:
        self.body = RELEASE.bundle_bytes
        self.work = Work(target, Fence(), math.inf)
        self.cutter = Cutter(files or rows(RELEASE), len(self.body), self.work)

    def begin(self) -> int:
        """Begin a response at the requested offset, and return it."""
        start = int(self.cutter.headers()["range"].split("=")[1].split("-")[0])
        self.cutter.check({"content-range": f"bytes {start}-9/{len(self.body)}"})
        return start

    def cut(self, body: bytes) -> None:
        """Pass a bundle to the cutter, from the requested offset to the end."""
        try:
            self.cutter.write(body[self.begin() :])
            self.cutter.finish()
        finally:
            self.cutter.restart()


@pytest.fixture
def knife(target: Folder) -> Knife:
    return Knife(target)


def empty(target: Folder) -> None:
    for path in list(target.files):
        target.delete(path, Fence())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_extracts_files_from_pieces_of_any_size(
    target: Folder, folder: Path, sizes: list[int]
) -> None:
    empty(target)
    knife = Knife(target)
    at, turn = knife.begin(), 0
    while at < len(knife.body):
        size = sizes[turn % len(sizes)]
        knife.cutter.write(knife.body[at : at + size])
        at, turn = at + size, turn + 1
    knife.cutter.finish()

    assert FILES == published(folder)


def test_extracts_the_requested_files_from_a_complete_bundle(target: Folder, folder: Path) -> None:
    """A server without ranges sends all files."""
    paths = ("a/two.py", "c.py")
    knife = Knife(target, *rows(RELEASE, *paths))
    knife.cutter.check({"content-length": str(len(knife.body))})
    knife.cutter.write(knife.body)
    knife.cutter.finish()

    assert {path: FILES[path] for path in paths} == published(folder)
    assert [0o755, 0o644] == [target.files[path].mode & 0o777 for path in paths]


def test_resumes_at_the_incomplete_file_after_a_lost_connection(knife: Knife, folder: Path) -> None:
    start = knife.begin()
    second = row("a/two.py")
    knife.cutter.write(knife.body[start : second.offset + 20])
    knife.cutter.restart()
    assert ["a/one.py"] == list(published(folder))
    assert ["a/two.py", "b/three.py", "c.py"] == knife.cutter.left

    assert second.offset == knife.begin()
    knife.cutter.write(knife.body[second.offset :])
    knife.cutter.finish()

    assert FILES == published(folder)
    assert [] == staged(folder)


def test_a_connection_lost_after_the_last_file_is_harmless(knife: Knife, folder: Path) -> None:
    start = knife.begin()
    knife.cutter.write(knife.body[start:])
    knife.cutter.restart()
    knife.cut(knife.body)

    assert FILES == published(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(RELEASE.bundle_bytes) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_never_yields_a_wrong_file(
    target: Folder, folder: Path, place: int, bit: int
) -> None:
    empty(target)
    body = bytearray(RELEASE.bundle_bytes)
    body[place] ^= 1 << bit

    with suppress(ObjectError):
        Knife(target).cut(bytes(body))

    found = published(folder)
    assert found == {path: FILES[path] for path in found}
    assert [] == staged(folder)


def test_ignores_names_and_file_types_in_the_directory_of_the_zip(
    knife: Knife, folder: Path
) -> None:
    body = bytearray(knife.body)
    with zipfile.ZipFile(io.BytesIO(knife.body)) as archive:
        names = [entry.filename.encode() for entry in archive.infolist()]
    for name, kind in zip(names, (0o120777, 0o020666, 0o010666, 0o040777), strict=True):
        at = body.rindex(name)  # in the central directory
        body[at - 8 : at - 4] = (kind << 16).to_bytes(4, "little")
        body[at : at + len(name)] = (b"../" * len(name))[: len(name)]
    knife.cut(bytes(body))

    assert FILES == published(folder)


def test_refuses_a_bundle_that_ends_early(knife: Knife) -> None:
    with pytest.raises(ObjectError, match=r"ends before 'c\.py'"):
        knife.cut(knife.body[: row("c.py").offset])


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
    target: Folder, folder: Path, changes: dict[str, object], why: str
) -> None:
    file = row("a/one.py")._replace(**changes)  # type: ignore[arg-type]

    with pytest.raises(ObjectError, match=why):
        Knife(target, file).cut(RELEASE.bundle_bytes)

    assert {} == published(folder) and [] == staged(folder)


@pytest.mark.parametrize("by", [-1, 1])
def test_refuses_a_stream_with_missing_or_extra_bytes(
    target: Folder, folder: Path, by: int
) -> None:
    file = row("a/one.py")

    with pytest.raises(ObjectError, match="corrupt"):
        Knife(target, file._replace(stored_bytes=file.stored_bytes + by)).cut(RELEASE.bundle_bytes)

    assert {} == published(folder)


def test_stops_a_zip_bomb_at_its_declared_size(target: Folder) -> None:
    with pytest.raises(ObjectError, match="more than 1000 bytes"):
        Knife(target, row("c.py")._replace(size_bytes=1_000)).cut(RELEASE.bundle_bytes)
