"""
A program that sends one HTTP request, for a webhook or ``--askpass-url``, and follows
redirects as Go's client does; :func:`git_sync_wrapper.logins.send_request` runs it.

A process of its own, because only its end bounds the whole answer: a timeout of
Python's sockets is one for each byte.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from http.client import HTTPException
from typing import Any
from urllib import request
from urllib.parse import unquote, urljoin, urlsplit

from sidecar_runtime import proxies

ANSWER_BYTES = 1 << 16
# After these, Go asks with GET; after others with the same method.
GET_AFTER = (301, 302, 303)
REDIRECTS = (*GET_AFTER, 307, 308)


def answer(method: str, url: str, headers: dict[str, str], redirects: int) -> list[Any]:
    """
    Return the status, the address of a redirect that is not followed, and the beginning
    of the body.

    Raises:
        OSError: There is no answer.
        ValueError, HTTPException: It is not a URL, or the answer is not HTTP.
    """
    with _opened(method, url, headers) as found:
        to = urljoin(url, found.headers.get("Location", ""))
        if found.status not in REDIRECTS:
            return [found.status, "", found.read(ANSWER_BYTES).decode(errors="replace")]
        if redirects == 0:
            return [found.status, to, ""]
        after = "GET" if found.status in GET_AFTER else method
    return answer(after, to, headers, redirects - 1)


def _opened(method: str, url: str, headers: dict[str, str]) -> Any:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    proxy = proxies.proxy_for(parts.scheme, parts.hostname or "", port, os.environ)
    opener = request.OpenerDirector()  # it knows no other schemes
    opener.add_handler(request.ProxyHandler({parts.scheme: proxy} if proxy else {}))
    opener.add_handler(request.UnknownHandler())
    opener.add_handler(request.HTTPHandler())
    if parts.scheme == "https":  # it reads all trusted CAs
        opener.add_handler(request.HTTPSHandler())
    # As in Go, they become Basic authentication, which no redirect takes along.
    userinfo, _, host = parts.netloc.rpartition("@")
    if userinfo:
        login = ":".join(map(unquote, userinfo.partition(":")[::2])).encode()
        basic = base64.b64encode(login).decode()
        headers = {**headers, "Authorization": f"Basic {basic}"}
    url = parts._replace(netloc=host).geturl()
    return opener.open(request.Request(url, None, headers, method=method))  # noqa: S310 - see above


def main() -> None:
    *asked, seconds = json.load(sys.stdin)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        said = answer(*asked)
    except OSError as error:
        said = [0, "", str(error)]
    except (
        ValueError,
        HTTPException,
    ) as error:  # its text may quote a password in the URL
        said = [0, "", f"no URL, or no HTTP ({type(error).__name__})"]
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
