"""
The trusted CA certificates.
"""

from __future__ import annotations

import os
import ssl

from s3_sync.s3.refusals import SourceError
from sidecar_runtime.aws.credentials import AwsConfig


def read_trust(config: AwsConfig) -> ssl.SSLContext:
    """
    Trust the CA bundle of the settings, else the system's store, else botocore's bundle.

    Raises:
        SourceError: The bundle cannot be read.
    """
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
