"""
Whose certificates are trusted.
"""

from __future__ import annotations

import os
import ssl

from s3_sync.s3.refusals import SourceError
from sidecar_runtime.aws.credentials import AwsConfig
from sidecar_runtime.logs import get_logger

log = get_logger("tls")


class Trust:
    """
    The CA bundle of the settings, else the system's store, else botocore's own bundle.

    A bundle is rotated while we run, in place or by the links of a ConfigMap: its files are looked
    at before each handshake. Connections that are open stay so.

    Raises:
        SourceError: The bundle cannot be read.
    """

    def __init__(self, config: AwsConfig) -> None:
        self._config = config
        self._stamps = self._look()
        self._context = _load(config)

    def context(self) -> ssl.SSLContext:
        """
        Return what the next handshake trusts: the same object while no file changes.

        A bundle that cannot be read any more, as one that is half written, leaves the last one.
        """
        stamps = self._look()
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = _load(self._config)
            except SourceError as error:
                log.warning("ca_bundle_kept", reason=error.reason, error=error.message)
            else:
                log.info("ca_bundle_reloaded", path=self._config.ca_bundle)
        return self._context

    def _look(self) -> list[tuple[int, ...] | None]:
        """
        Return what changes with the content of each file.
        """
        if self._config.ca_bundle:
            return [_stamp(self._config.ca_bundle)]
        store = ssl.get_default_verify_paths().cafile
        return [_stamp(path) for path in (store, self._config.ca_fallback) if path]


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _load(config: AwsConfig) -> ssl.SSLContext:
    try:
        if config.ca_bundle:
            return ssl.create_default_context(cafile=config.ca_bundle)
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        has_store = paths.cafile or (paths.capath and os.listdir(paths.capath))
        if not has_store and config.ca_fallback:
            context.load_verify_locations(cafile=config.ca_fallback)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(
            "tls_failed",
            f"the CA bundle {config.ca_bundle} cannot be read: {error.strerror or error}",
            "Check AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE.",
        ) from None
    return context
