"""
How git would go out to a URL: proxy, certificates, headers.

git-sync gives its git neither the system's configuration nor a user's, only
``--git-config``; so these and the environment say how to go out.
Source: https://git-scm.com/docs/git-config (http.*), https://curl.se/docs/manpage.html (proxies).
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from sidecar_runtime.parsers import boolean

_HEEDED = {"http.sslcainfo", "http.sslverify", "http.proxy", "http.extraheader"}
# What changes how git transfers, but neither where it goes nor what it says.
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
    git would go out in a way that is not heeded here; the text says why.
    """


@dataclass(frozen=True, slots=True)
class Way:
    """
    How git goes out to a URL.

    Args:
        ca_file: The only authorities to trust; `None` trusts those of the system.
        proxy: An HTTP proxy, `None` for none.
        headers: Further headers.
    """

    ca_file: str | None = None
    verifies: bool = True
    proxy: SplitResult | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def way_to(
    url: SplitResult, git_config: Iterable[tuple[str, str]], environ: Mapping[str, str]
) -> Way:
    """
    Return how git-sync's git would go to a URL.

    Raises:
        Unheeded: By means that are not heeded here.
    """
    config: dict[str, str] = {}
    headers = {}
    for key, value in git_config:
        name = key.lower()
        if name == "http.extraheader":
            header, _, text = value.partition(":")
            headers[header.strip()] = text.strip()
        elif name.startswith(_TELLING) and name not in _HEEDED | _HARMLESS:
            # What stands between the dots may be a URL with a password.
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
    # curl heeds HTTP_PROXY in small letters only: elsewhere a client of a CGI could set it.
    names = ["https_proxy", "HTTPS_PROXY"] if url.scheme == "https" else ["http_proxy"]
    found = next((v for n in (*names, "all_proxy", "ALL_PROXY") if (v := environ.get(n))), "")
    text = found if configured is None else configured
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not text or _is_excepted(url.hostname or "", excepted):
        return None
    proxy = urlsplit(text if "://" in text else f"http://{text}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise Unheeded(f"the proxy is one of {proxy.scheme}://")
    return proxy


def _is_excepted(host: str, excepted: str) -> bool:
    for entry in excepted.replace(",", " ").split():
        name = entry.strip("[]").removeprefix("*").lstrip(".").partition(":")[0].lower()
        if entry == "*" or host == name or (name and host.endswith(f".{name}")):
            return True
        with suppress(ValueError):
            if ip_address(host) in ip_network(entry, strict=False):
                return True
    return False


def is_loopback(host: str) -> bool:
    """
    Whether a host is this machine itself, where Go's client goes by no proxy.
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(way: Way) -> ssl.SSLContext:
    """
    Return what checks the server's certificate, as git would.

    Raises:
        OSError: The file of authorities cannot be read; ssl.SSLError is one.
    """
    context = ssl.create_default_context(cafile=way.ca_file)
    # git accepts the CAs of companies that lack an extension; so do we.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not way.verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def proxy_headers(proxy: SplitResult) -> Mapping[str, str]:
    """
    Return what logs in to a proxy; nothing where its URL has no username.
    """
    if not proxy.username:
        return {}
    return {"Proxy-Authorization": basic(unquote(proxy.username), unquote(proxy.password or ""))}


def basic(username: str, password: str) -> str:
    """
    Return the ``Authorization`` of username and password.
    """
    pair = f"{username}:{password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(pair).decode()}"
