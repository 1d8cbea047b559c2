"""
From the settings to the source that they name.
"""

from __future__ import annotations

from typing import Any

from s3_sync.listing.source import ListingSource
from s3_sync.release.source import ReleaseSource
from s3_sync.s3.client import S3Client
from s3_sync.settings import Settings
from s3_sync.source import Source


def open_source(settings: Settings, client: S3Client) -> Source[Any]:
    """
    Return the source of the settings; what it knows of a file is its own affair.
    """
    if settings.source_kind == "release":
        return ReleaseSource(settings, client, remembers=not settings.dry_run)
    return ListingSource(settings, client)
