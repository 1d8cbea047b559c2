"""
The source ``release``: the format of releases, how a release reaches the target, and
whose releases are trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s3_sync.settings import Settings
from sidecar_runtime.errors import Problem, SettingsError

if TYPE_CHECKING:
    from s3_sync.release.signature import Keys


def read_trusted_keys(settings: Settings) -> Keys | None:
    """
    Return the trusted public keys; None if signatures are not required.

    Raises:
        SettingsError: The keys cannot be read, or there are none.
    """
    if settings.trusted_keys is None:
        return None
    from s3_sync.release.signature import read_keys  # noqa: PLC0415 - loads cryptography: 8 MiB

    try:
        return read_keys(settings.trusted_keys)
    except ValueError as error:
        raise SettingsError(
            [Problem("S3_SYNC_TRUSTED_KEYS", settings.trusted_keys, str(error))]
        ) from None
