"""
Sends an HTTP request: of a webhook, and to the service at ``--askpass-url``.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple
from urllib.parse import unquote, urljoin

from sidecar_runtime import proxies


class Answer(NamedTuple):
    """
    Args:
        location: The address to which it redirects; empty if it does not.
        body: The beginning of the body, as far as it was asked for.
    """

    status: int
    location: str
    body: str


def send(
    method: str,
    address: str,
    headers: dict[str, str],
    *,
    redirects: int = 0,
    seconds: float,
    body_bytes: int = 0,
) -> Answer:
    """
    Return the answer to a request.

    Args:
        redirects: How many are followed.
        seconds: The limit for each wait, and for the body.
        body_bytes: How much of the body to read: it may be endless.

    Raises:
        OSError: There is no answer in time, or the address is not a URL.
    """
    import urllib3  # noqa: PLC0415 - few have a webhook or such a service

    util = urllib3.util
    try:
        url = util.parse_url(address)
        port = url.port or (443 if url.scheme == "https" else 80)
        client = urllib3.PoolManager()
        if proxy := proxies.proxy_for(
            url.scheme or "", url.host or "", port, os.environ
        ):
            user = unquote(util.parse_url(proxy).auth or "")
            login = util.make_headers(proxy_basic_auth=user)
            client = urllib3.ProxyManager(proxy, proxy_headers=login)
        # As in Go; it is not for another server to which this one redirects.
        login = util.make_headers(basic_auth=unquote(url.auth or ""))
        retries = util.Retry(
            None, 0, 0, redirect=redirects, other=0, raise_on_redirect=False
        )
        ends_at = time.monotonic() + seconds
        with client.request(
            method,
            url._replace(auth=None).url,
            headers=headers | login,
            preload_content=False,
            timeout=seconds,
            retries=retries,
        ) as found:
            body = b""
            while len(body) < body_bytes and (part := found.read1(body_bytes)):
                body += part
                if time.monotonic() > ends_at:
                    raise OSError(f"no whole answer within {seconds:g} s")
            to = found.get_redirect_location() or ""
            text = body.decode(errors="surrogateescape")
            return Answer(found.status, to and urljoin(address, to), text)
    except urllib3.exceptions.HTTPError as error:
        # Its own text may quote a password, but not that of its cause.
        raise OSError(f"{error.__cause__ or 'not a URL'}") from None
