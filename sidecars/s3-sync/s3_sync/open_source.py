"""
Opens the source that the settings select, and the S3 client that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from s3_sync.s3.client import S3Client
from s3_sync.s3.pool import PATIENCE, Patience
from s3_sync.s3.refusals import Operation
from s3_sync.settings import Settings
from s3_sync.source import Source
from sidecar_runtime.aws.credentials import Chain

Count = Callable[[Operation], None]
OpenClient = Callable[[Settings, Count], S3Client]


def open_chain(settings: Settings) -> Chain:
    """
    Return the credentials chain of the settings.
    """
    return Chain(is_anonymous=settings.bucket_access == "public")


def open_client(
    settings: Settings, count: Count, *, chain: Chain | None = None, patience: Patience = PATIENCE
) -> S3Client:
    """
    Return the S3 client of the settings.

    Args:
        count: See :class:`S3Client`.
        chain: Used instead of the settings' chain.
    """
    return S3Client(
        settings.bucket,
        settings.prefix,
        chain or open_chain(settings),
        count,
        pays=settings.bucket_access == "requester-pays",
        patience=patience,
    )


def open_source(settings: Settings, client: S3Client) -> Source[Any]:
    """
    Return the source that the settings select.
    """
    if settings.source_kind == "release":  # import only the source that is used
        from s3_sync.release.source import ReleaseSource  # noqa: PLC0415

        return ReleaseSource(settings, client)
    from s3_sync.listing.source import ListingSource  # noqa: PLC0415

    return ListingSource(settings, client)
