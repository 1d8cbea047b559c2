"""
Sends an HTTP request: of a webhook, and to the service at ``--askpass-url``.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin

from sidecar_runtime import proxies

SHUT_RDWR = 2
"""As in `socket`, whose import would be a twentieth of a one-shot's."""


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
        seconds: The limit for all of it, redirects and body included.
        body_bytes: How much of the body to read: it may be endless.

    Raises:
        OSError: There is no answer in time, or the address is not a URL.
    """
    import urllib3  # noqa: PLC0415 - few have a webhook or such a service

    util = urllib3.util
    made: list[Any] = []
    is_late = threading.Event()
    cut = threading.Timer(seconds, _cut, [made, is_late])
    cut.daemon = True
    cut.start()
    try:
        url = util.parse_url(address)
        client = urllib3.PoolManager()
        proxy = proxies.proxy_for(
            url.scheme or "",
            url.host or "",
            url.port or (443 if url.scheme == "https" else 80),
            os.environ,
        )
        if proxy:
            login = util.make_headers(
                proxy_basic_auth=unquote(util.parse_url(proxy).auth or "", "latin-1")
            )
            client = urllib3.ProxyManager(proxy, proxy_headers=login)
        client.pool_classes_by_scheme = {
            scheme: _noting(pool, made, is_late)
            for scheme, pool in client.pool_classes_by_scheme.items()
        }
        # As in Go; it is not for another server to which this one redirects. latin-1
        # keeps its bytes, because urllib3 writes no other letters.
        login = util.make_headers(basic_auth=unquote(url.auth or "", "latin-1"))
        with client.request(
            method,
            url._replace(auth=None).url,
            headers=headers | login,
            preload_content=False,
            timeout=seconds,
            retries=util.Retry(
                None, 0, 0, redirect=redirects, other=0, raise_on_redirect=False
            ),
        ) as found:
            body = found.read(body_bytes).decode(errors="surrogateescape")
            to = found.get_redirect_location() or ""
        if not is_late.is_set():
            return Answer(found.status, to and urljoin(address, to), body)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        if not is_late.is_set():
            # Its own text may quote a password, but not that of its cause.
            raise OSError(
                f"{error.__cause__ or error.__context__ or 'an invalid URL or method'}"
            ) from None
    finally:
        cut.cancel()
        for one in made:
            one.close()
    raise OSError(f"no whole answer within {seconds:g} s")


def _noting(pool: Any, made: list[Any], is_late: threading.Event) -> Any:
    """
    Return a class of pools that notes a duplicate of each socket, because connections
    forget theirs while an answer that will end them is read, or in the handshake of
    TLS. It makes none once it is late: to read on would follow a redirect whose body
    was cut.
    """

    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        def _new_conn(self) -> Any:
            new = super()._new_conn()
            made.append(new.dup())
            if is_late.is_set():
                raise TimeoutError
            return new

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


def _cut(made: list[Any], is_late: threading.Event) -> None:
    """
    End what is still read: a client's timeout is for each byte, so whoever sends one
    now and then would be waited for without end.
    """
    is_late.set()
    for one in made:
        with suppress(OSError):  # it has ended
            one.shutdown(SHUT_RDWR)
