"""
The request of a webhook, by urllib: through the environment's proxies, redirects followed.
"""

from __future__ import annotations

import http.client
import ipaddress
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit


def send(method: str, url: str, headers: Mapping[str, str], timeout_seconds: float) -> int:
    """
    Send a request without a body; return the status of the answer, whatever it is.

    Raises:
        OSError: No answer in time, or not an HTTP one.
        ValueError: The URL is not a web address.
    """
    # As Go's client: the environment's proxies, but never for this machine itself.
    proxies: dict[str, str] | None = {} if _is_loopback(urlsplit(url).hostname or "") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - http(s), as the options say
    try:
        with opener.open(request, timeout=timeout_seconds) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except http.client.InvalidURL:  # its text has the path, which may be a secret
        raise ValueError("the URL has a character that no URL has") from None
    except http.client.HTTPException as error:
        raise OSError(f"it is not an HTTP answer ({type(error).__name__})") from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
