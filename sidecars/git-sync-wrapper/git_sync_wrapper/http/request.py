"""
Send the request of a webhook with urllib: uses the environment's proxies, follows redirects.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from git_sync_wrapper.http.route import Way, is_loopback, take_login, tls_context


class _Redirects(urllib.request.HTTPRedirectHandler):
    """
    Repeats a request of any method at the target of a 307 or 308, as git-sync does.
    """

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        if code in (307, 308):
            return urllib.request.Request(newurl, headers=req.headers, method=req.get_method())  # noqa: S310 - the handler checks it
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Https(urllib.request.HTTPSHandler):
    """
    Reads the certificate authorities when a request needs them: over http they would delay it.
    """

    def __init__(self) -> None:
        urllib.request.AbstractHTTPHandler.__init__(self)  # HTTPSHandler's own reads them

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPSConnection, req, context=tls_context(Way()))


def send(method: str, url: str, headers: Mapping[str, str], timeout_seconds: float) -> int:
    """
    Send a request without a body; return the status of the answer, whatever it is.

    Raises:
        OSError: No answer arrived in time, or it is not HTTP.
        ValueError: The URL is invalid.
    """
    place, login = take_login(urlsplit(url))
    # None: the proxies of the environment.
    proxies: dict[str, str] | None = {} if is_loopback(place.hostname or "") else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies),
        _Redirects(),
        _Https(),
    )
    request = urllib.request.Request(place.geturl(), headers=dict(headers), method=method)  # noqa: S310 - http(s): the rules check it
    for name, value in login.items():  # not for the target of a redirect
        request.add_unredirected_header(name, value)
    try:
        with opener.open(request, timeout=timeout_seconds) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except http.client.InvalidURL:  # its text contains the path, which may be a secret
        raise ValueError("the URL contains an invalid character") from None
    except http.client.HTTPException as error:
        raise OSError(f"it is not a valid HTTP answer ({type(error).__name__})") from None
