"""Responses to ListObjectsV2, and a source that reads them."""

import asyncio
from collections.abc import Sequence
from typing import cast

from s3_sync.listing import ListingSource
from s3_sync.plan import State
from s3_sync.reasons import SourceError
from s3_sync.s3.client import S3Client
from s3_sync.settings import load_settings
from sidecar_runtime.fence import Fence
from tests.support.raising import raised

PREFIX = "dags/"

ETAG = "d41d8cd98f00b204e9800998ecf8427e"

AWS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

ORDER = ("Key", "LastModified", "ETag", "Size", "StorageClass")


def contents(
    key: str,
    *,
    etag: str = f"&quot;{ETAG}&quot;",
    size: str = "5",
    order: Sequence[str] = ORDER,
    storage_class: str = "STANDARD",
    more: str = "",
) -> str:
    values = {
        "Key": key,
        "LastModified": "2026-01-02T03:04:05.000Z",
        "ETag": etag,
        "Size": size,
        "StorageClass": storage_class,
    }
    inner = "".join(f"<{name}>{values[name]}</{name}>" for name in order)
    return f"<Contents>{inner}{more}</Contents>"


def page(
    *found: str,
    token: str | None = None,
    namespace: str = AWS,
    encoding: str = "",
    truncated: str | None = None,
    first: bool = False,
) -> bytes:
    truncated = truncated or ("true" if token else "false")
    own = [f"<Name>bucket</Name><IsTruncated>{truncated}</IsTruncated>"]
    own.append(f"<KeyCount>{len(found)}</KeyCount>")
    own.append(
        f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    )
    own.append(f"<EncodingType>{encoding}</EncodingType>" if encoding else "")
    parts = [*found, *own] if first else [*own, *found]
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<ListBucketResult {namespace}>{''.join(parts)}</ListBucketResult>"
    ).encode()


class Server:
    """Responds with given pages, by token; stands for the client of a source."""

    def __init__(self, *pages: bytes) -> None:
        self.pages: dict[str | None, bytes] = dict(
            zip([None, *"abcdefgh"], pages, strict=False)
        )
        self.asked: list[str | None] = []

    async def ensure_credentials(self, fence: Fence) -> None:
        pass

    async def list_page(self, token: str | None) -> bytes:
        self.asked.append(token)
        assert len(self.asked) < 50, "it never ends"
        return self.pages[token]


class Lister:
    """A source that reads the listing of a server."""

    def __init__(self, server: Server, **environ: str) -> None:
        settings, _ = load_settings(
            {
                "AWS_BUCKET": "bucket",
                "KEY_PATH": PREFIX,
                "DEST_PATH": "/opt/dags",
                "S3_SYNC_ALLOW_EMPTY": "true",
                **environ,
            }
        )
        self.source = ListingSource(settings, cast(S3Client, server))

    def read(self) -> State:
        return asyncio.run(self.source.read(Fence()))


def read(*pages: bytes, **environ: str) -> State:
    return Lister(Server(*pages), **environ).read()


def refused(*pages: bytes, **environ: str) -> str:
    """Return the error message for pages that must be refused."""
    error = raised(SourceError, read, *pages, **environ)
    assert error.reason == "listing_invalid"
    assert "Nothing was changed." in error.advice
    return error.message
