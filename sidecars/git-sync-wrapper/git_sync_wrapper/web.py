"""
One HTTP request, for a webhook and for ``--askpass-url``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from sidecar_runtime import proxies

ANSWER_BYTES = 1 << 16


def request(method: str, url: str, headers: Mapping[str, str], seconds: float) -> tuple[int, bytes]:
    """
    Send a request; return the status and the beginning of the body.

    Raises:
        OSError: There is no answer.
        ValueError: It is not a URL.
    """
    from urllib import error, request  # noqa: PLC0415 - 3 MiB, and few need it

    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    proxy = proxies.proxy_for(parts.scheme, parts.hostname or "", port, os.environ)
    way = request.ProxyHandler({parts.scheme: proxy} if proxy else {})
    asked = request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - the opener checks it
    try:
        with request.build_opener(way).open(asked, timeout=seconds) as answer:
            return answer.status, answer.read(ANSWER_BYTES)
    except error.HTTPError as refused:
        with refused:
            return refused.code, refused.read(ANSWER_BYTES)
