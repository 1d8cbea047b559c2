"""
Keys and AWS configuration from the environment, as botocore would read them.

With keys in the environment and no profile, botocore's answer depends on a few variables only.
Asking it costs a process and a third of the CPU of a task pod's one-shot (2026-11), so it is asked
only if something that this module does not know could change the answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

_KNOWN = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "AWS_EC2_METADATA_DISABLED",  # IMDS is not asked if the environment has keys
    "AWS_BUCKET",  # a setting of the sidecars
}


def answer(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """
    Return what :func:`sidecar_runtime.aws.chain.resolve` would; None if only botocore can tell.
    """
    access_key = environ.get("AWS_ACCESS_KEY_ID")
    secret_key = environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key or _may_say_more(environ):
        return None
    botocore = find_spec("botocore")
    assert botocore is not None and botocore.origin is not None
    return {
        "credentials": {
            "access_key": access_key,
            "secret_key": secret_key,
            "token": environ.get("AWS_SESSION_TOKEN") or None,
            "expires_at": None,
            "method": "env",
        },
        "region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        "endpoint_url": environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"),
        "ca_bundle": environ.get("AWS_CA_BUNDLE") or environ.get("REQUESTS_CA_BUNDLE"),
        # botocore's own bundle; botocore itself would use certifi's if that is installed.
        "ca_fallback": os.path.join(os.path.dirname(botocore.origin), "cacert.pem"),
        "addressing_style": None,
        "use_fips": False,
        "use_dualstack": False,
    }


def _may_say_more(environ: Mapping[str, str]) -> bool:
    """
    Whether a profile, or a variable unknown to this module, could change the answer.
    """
    folder = os.path.expanduser("~/.aws")
    return os.path.lexists(folder) or any(
        name.startswith("AWS_") and name not in _KNOWN for name in environ
    )
