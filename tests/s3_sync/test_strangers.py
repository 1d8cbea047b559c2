"""
Bytes that a server, or whoever can write to the volume, chooses: each reader answers,
or raises the one error that it documents.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from s3_sync.journal import HEADER, read_journal
from s3_sync.listing import join_pages, next_token, read_page
from s3_sync.names import is_revision
from s3_sync.reasons import SourceError
from s3_sync.release.format import Invalid, parse_manifest, read_pointer
from s3_sync.s3.http import Connection, WireError
from tests.s3_sync.listing.answers import contents, page
from tests.support.s3_sync.releases import make_release
from tests.support.strangers import damaged

PAGES = (
    page(contents("dags/a.py"), contents("dags/b/c.py")),
    page(contents("dags/a.py"), token="next"),
)
RELEASE = make_release({"a.py": b"print()\n", "pkg/b.py": b""})
MANIFEST = next(body for name, body in RELEASE.objects().items() if "releases/" in name)
LINES = [
    HEADER,
    ["a.py", "0" * 32, 5, 1, 2, 420],
    ["pkg/b.py", "", 0, 1, 3, 420, 0],
    ["a.py"],
]
JOURNAL = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: x\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nx",
)


@given(body=damaged(*PAGES))
def test_a_page_of_a_listing_is_a_page_or_invalid(body: bytes) -> None:
    with suppress(SourceError):
        found = read_page(body, "dags/", lambda _: True, 10)
        assert all(
            not path.startswith(("/", "../"))
            for path in join_pages([found], "dags/").files
        )
        next_token(body, found)


@given(data=damaged(MANIFEST))
def test_a_manifest_is_that_of_its_release_or_invalid(data: bytes) -> None:
    with suppress(Invalid):
        assert RELEASE.revision == parse_manifest(data, RELEASE.revision).revision


@given(data=damaged(RELEASE.pointer_bytes))
def test_a_pointer_names_a_release_or_is_invalid(data: bytes) -> None:
    with suppress(Invalid):
        pointer, signed_by = read_pointer(data, None, "box", "dags/")
        assert is_revision(pointer.revision)
        assert not signed_by


@given(data=damaged(JOURNAL), published=st.integers(0, 2))
def test_a_journal_names_files_below_its_folder_or_is_lost(
    data: bytes, published: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name, "list").write_bytes(data)
        folder = os.open(name, os.O_RDONLY)
        try:
            listed = read_journal("list", folder, folder, published=published)
        finally:
            os.close(folder)
    assert not any(
        ".." in names or "" in names
        for names in [path.split("/") for path in listed.files]
    )


class Transport(asyncio.Transport):
    """
    A connection on which a server has sent something.
    """

    def write(self, data: object) -> None: ...
    def abort(self) -> None: ...


@given(data=damaged(*ANSWERS), cut=st.integers(1, 40))
def test_an_http_answer_ends_whole_or_as_an_error_of_the_wire(
    data: bytes, cut: int
) -> None:
    async def exchange() -> int:
        connection = Connection()
        connection.connection_made(Transport())
        asking = asyncio.ensure_future(connection.request(b"GET", None, 30))
        await asyncio.sleep(0)
        for start in range(0, len(data), cut):
            piece = data[start : start + cut]
            connection.get_buffer(-1)[: len(piece)] = piece
            connection.buffer_updated(len(piece))
        connection.connection_lost(None)
        return (await asking).status

    with suppress(WireError):
        assert 200 <= asyncio.run(exchange()) <= 999
