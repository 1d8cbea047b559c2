"""
The trusted CA certificates.
"""

from __future__ import annotations

import os
import ssl

from s3_sync.s3.refusals import SourceError
from sidecar_runtime.aws.credentials import AwsConfig
from sidecar_runtime.logs import get_logger

log = get_logger("tls")


class CaBundle:
    """
    Trusts the CA bundle of the settings, else the system's store, else botocore's bundle.

    A bundle may be rotated at runtime, in place or through the links of a ConfigMap: its files are
    checked before each handshake. Open connections stay open.

    Raises:
        SourceError: The bundle cannot be read.
    """

    def __init__(self, config: AwsConfig) -> None:
        self._config = config
        self._stamps = self._look()
        self._context = _load(config)

    def context(self) -> ssl.SSLContext:
        """
        Return the context for the next handshake; the same object while no file changes.

        If the bundle cannot be read, for example while it is being written, the last one stays.
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
        Return a stamp of each file that changes with its content.
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
        bundle = config.ca_bundle or error.filename or config.ca_fallback
        raise SourceError(
            "tls_failed",
            f"the CA bundle {bundle} cannot be read: {error.strerror or error}",
            "Check AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE.",
        ) from None
    return context
