"""
How git would connect to a URL: proxy, certificates, headers.

git-sync's git reads neither the system's nor a user's configuration. Only ``--git-config`` and the
environment decide how it connects.
Source: https://git-scm.com/docs/git-config (http.*), https://curl.se/docs/manpage.html (proxies).
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from sidecar_runtime import proxies
from sidecar_runtime.parsers import boolean

_HEEDED = {"http.sslcainfo", "http.sslverify", "http.proxy", "http.extraheader"}
# Settings that change how git transfers, but neither its destination nor the meaning of a request.
_HARMLESS = {
    "credential.usehttppath",
    "http.emptyauth",
    "http.followredirects",
    "http.lowspeedlimit",
    "http.lowspeedtime",
    "http.maxrequests",
    "http.minsessions",
    "http.postbuffer",
    "http.proactiveauth",
    "http.useragent",
    "http.version",
}
_TELLING = ("http.", "url.", "credential.", "include.", "includeif.", "remote.", "protocol.")


class Unheeded(ValueError):
    """
    git would connect in a way that our client does not support; the text says why.
    """


@dataclass(frozen=True, slots=True)
class Way:
    """
    How git connects to a URL.

    Args:
        ca_file: The only authorities to trust; `None` trusts the system's authorities.
        proxy: An HTTP proxy, or `None`.
        headers: Additional headers.
    """

    ca_file: str | None = None
    verifies: bool = True
    proxy: SplitResult | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def way_to(
    url: SplitResult, git_config: Iterable[tuple[str, str]], environ: Mapping[str, str]
) -> Way:
    """
    Return how git-sync's git would connect to a URL.

    Raises:
        Unheeded: In a way that our client does not support.
    """
    config: dict[str, str] = {}
    headers = {}
    for key, value in git_config:
        name = key.lower()
        if name == "http.extraheader":
            header, _, text = value.partition(":")
            headers[header.strip()] = text.strip()
        elif name.startswith(_TELLING) and name not in _HEEDED | _HARMLESS:
            # The part between the first and the last dot may be a URL with a password.
            first, *between, last = key.split(".")
            raise Unheeded(f"--git-config sets {first}.{'<URL>.' if between else ''}{last}")
        config[name] = value
    for name in ("GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "GIT_SSL_CERT", "GIT_SSL_CAPATH"):
        if environ.get(name):
            raise Unheeded(f"{name} is set")
    verify = config.get("http.sslverify")
    return Way(
        ca_file=environ.get("GIT_SSL_CAINFO") or config.get("http.sslcainfo") or None,
        verifies="GIT_SSL_NO_VERIFY" not in environ and (verify is None or boolean(verify)),
        proxy=_proxy_to(url, config.get("http.proxy"), environ),
        headers=headers,
    )


def _proxy_to(
    url: SplitResult, configured: str | None, environ: Mapping[str, str]
) -> SplitResult | None:
    # curl reads only the lower-case http_proxy: in a CGI script, a client can set HTTP_PROXY.
    names = ["https_proxy", "HTTPS_PROXY"] if url.scheme == "https" else ["http_proxy"]
    found = next((v for n in (*names, "all_proxy", "ALL_PROXY") if (v := environ.get(n))), "")
    text = found if configured is None else configured
    port = url.port or (443 if url.scheme == "https" else 80)
    if not text or proxies.is_excepted(url.hostname or "", port, environ):
        return None
    try:
        proxy = urlsplit(text if "://" in text else f"http://{text}")
        _ = proxy.port
    except ValueError:  # its text may contain a part of the password
        raise Unheeded("the proxy URL cannot be read") from None
    if proxy.scheme != "http" or not proxy.hostname:
        raise Unheeded(f"the proxy URL begins with {proxy.scheme}://")
    return proxy


def is_loopback(host: str) -> bool:
    """
    Whether a host is this machine itself: like Go's client, requests to it use no proxy.
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(way: Way) -> ssl.SSLContext:
    """
    Return a TLS context that verifies the server's certificate as git would.

    Raises:
        OSError: The file of authorities cannot be read; ssl.SSLError is a subclass.
    """
    context = ssl.create_default_context(cafile=way.ca_file)
    # Some companies' CAs omit an extension that is required in strict mode; git accepts them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not way.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def proxy_headers(proxy: SplitResult) -> Mapping[str, str]:
    """
    Return the headers that log in to a proxy; empty if its URL has no username.
    """
    if not proxy.username:
        return {}
    return {"Proxy-Authorization": basic(unquote(proxy.username), unquote(proxy.password or ""))}


def take_login(url: SplitResult) -> tuple[SplitResult, dict[str, str]]:
    """
    Return a URL without its user and password, and the header that carries them instead.
    """
    _, _, host = url.netloc.rpartition("@")
    if url.username is None:
        return url, {}
    pair = unquote(url.username), unquote(url.password or "")
    return url._replace(netloc=host), {"Authorization": basic(*pair)}


def basic(username: str, password: str) -> str:
    """
    Return the value of an ``Authorization`` header for a username and password.
    """
    pair = f"{username}:{password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(pair).decode()}"
