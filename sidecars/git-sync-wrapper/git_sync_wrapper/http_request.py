"""
Sends HTTP requests: in the thread of a webhook, which only needs the status; and as a
program, which :mod:`git_sync_wrapper.logins` runs, for ``--askpass-url``.

A process of its own, because only its end bounds the whole answer: every client has a
timeout for each byte.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any
from urllib.parse import unquote, urljoin

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, make_headers, parse_url

from sidecar_runtime import proxies

__all__ = ["HTTPError", "send"]

ANSWER_BYTES = 1 << 16


def send(
    method: str, address: str, headers: dict[str, str], redirects: int, seconds: float
) -> Any:
    """
    Return the response, whose body is not read yet.

    Args:
        redirects: How many are followed.
        seconds: The limit for each wait.

    Raises:
        HTTPError: There is no answer, or it is not a URL. Its own text may quote a
            password, but not that of its cause.
    """
    url = parse_url(address)
    scheme, port = url.scheme or "", url.port or (443 if url.scheme == "https" else 80)
    client = urllib3.PoolManager()
    if proxy := proxies.proxy_for(scheme, url.host or "", port, os.environ):
        login = make_headers(proxy_basic_auth=unquote(parse_url(proxy).auth or ""))
        client = urllib3.ProxyManager(proxy, proxy_headers=login)
    # As in Go; it is not for another server to which this one redirects.
    login = make_headers(basic_auth=unquote(url.auth or ""))
    return client.request(
        method,
        url._replace(auth=None).url,
        headers=headers | login,
        preload_content=False,
        timeout=seconds,
        retries=Retry(None, 0, 0, redirect=redirects, other=0, raise_on_redirect=False),
    )


def main() -> None:
    address, seconds = json.load(sys.stdin)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a parent may have ignored it
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        found = send("GET", address, {}, 0, seconds)
        to = found.get_redirect_location() or ""
        body = found.read(ANSWER_BYTES).decode(errors="surrogateescape")
        said = [found.status, to and urljoin(address, to), body]
    except HTTPError as error:
        said = [0, "", f"{error.__cause__ or 'not a URL'}"]
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
