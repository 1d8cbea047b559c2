"""
From the settings to the source that they name, and what reads it.
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
    Return what finds the credentials.
    """
    return Chain(is_anonymous=settings.bucket_access == "public")


def open_client(
    settings: Settings, count: Count, *, chain: Chain | None = None, patience: Patience = PATIENCE
) -> S3Client:
    """
    Return the reader of the bucket.

    Args:
        count: As of :class:`S3Client`.
        chain: Another one than that of the settings.
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
    Return the source of the settings; what it knows of a file is its own affair.
    """
    if settings.source_kind == "release":  # whoever reads the one pays for no import of the other
        from s3_sync.release.source import ReleaseSource  # noqa: PLC0415

        return ReleaseSource(settings, client, remembers=not settings.dry_run)
    from s3_sync.listing.source import ListingSource  # noqa: PLC0415

    return ListingSource(settings, client)
