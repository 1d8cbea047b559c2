"""
Which requests go through a proxy: one meaning of ``NO_PROXY`` for every client of the
suite.

Its entries are separated by commas or spaces:

- ``*``: every host;
- a name, also as ``.name`` or ``*.name``: that host and all hosts below it;
- an address or a network, such as ``10.0.0.0/8``: a host that is given as such an
  address, because no name is resolved.

A name or an address may end in ``:PORT``. As in curl and Python, a variable in lower
case wins. Sources: ``lib/noproxy.c`` of curl, ``golang.org/x/net/http/httpproxy``,
``urllib.request``.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

METADATA = (
    "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::23,fd00:ec2::254,"
    "[fd00:ec2::23],[fd00:ec2::254]"  # as urllib reads them
)
"""
The addresses of EC2's, ECS's and EKS's metadata services. Each node has its own:
through a proxy they do not answer, or with the credentials of the proxy's node.
"""

_WITH_PORT = re.compile(r"([^:]+|\[.+\]):(\d+)")
# No name ends in a number: that is an address with a mistake in it.
_NAME = re.compile(r"(?:\*?\.)?((?:[\w-]+\.)*(?!\d+\.?$)[\w-]+)\.?")


def proxy_for(
    scheme: str, host: str, port: int, environ: Mapping[str, str]
) -> str | None:
    """
    Return the URL of the proxy for requests to a host; None if they are sent directly.
    """
    proxy = environ.get(variable(f"{scheme}_proxy", environ))
    if not proxy or is_excepted(host, port, environ):
        return None
    return proxy if "//" in proxy else f"http://{proxy}"  # http:// is often omitted


def is_excepted(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """
    Whether an entry of ``NO_PROXY`` covers a host.
    """
    host = host.lower().rstrip(".")
    return any(_covers(entry, host, port) for entry in _entries(environ))


def ignored(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return ``NO_PROXY`` with the reason why some of it has no effect; empty if all is
    understood.
    """
    # An entry that is a URL may contain a password.
    wrong = [
        e.rpartition("@")[2] for e in _entries(environ) if _covers(e, "", 0) is None
    ]
    why = f"not a host, .domain, address or network, with or without :PORT: {', '.join(wrong)}"
    return {variable("no_proxy", environ): why} if wrong else {}


def for_others(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return variables that give ``NO_PROXY`` this meaning in programs that are not ours,
    as far as they can express it, and that except the metadata services.

    git reads no ``:PORT``, and botocore no network.
    """
    if not any(name.lower().endswith("_proxy") for name in environ):
        return {}
    entries = [e.removeprefix("*.").lstrip(".") for e in _entries(environ)]
    endpoint = (
        urlsplit(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")).hostname or ""
    )
    text = ",".join([*entries, METADATA, endpoint])
    if "*" in _entries(environ):
        text = "*"  # others read it only if it is the only entry
    return {"no_proxy": text, "NO_PROXY": text}


def variable(name: str, environ: Mapping[str, str]) -> str:
    """
    Return the spelling of a variable that counts: in lower case if it is set so.
    """
    return name if environ.get(name) else name.upper()


def configured(environ: Mapping[str, str]) -> str:
    """
    Return the proxies that are set, as ``NAME=URL`` without passwords; empty if there
    are none.
    """
    names = [variable(name, environ) for name in ("https_proxy", "http_proxy")]
    return ", ".join(
        f"{n}={environ[n].rpartition('@')[2]}" for n in names if environ.get(n)
    )


def _entries(environ: Mapping[str, str]) -> list[str]:
    return (
        environ.get(variable("no_proxy", environ), "").lower().replace(",", " ").split()
    )


def _covers(entry: str, host: str, port: int) -> bool | None:
    """
    Whether an entry covers a host; None if it has no meaning.
    """
    if entry == "*":
        return True
    found = _WITH_PORT.fullmatch(entry)
    place, number = found.groups() if found else (entry, str(port))
    with suppress(ValueError):
        network = ip_network(place.strip("[]"), strict=False)
        with suppress(ValueError):
            return number == str(port) and ip_address(host) in network
        return False
    name = _NAME.fullmatch(place)
    if name:
        return number == str(port) and f".{host}".endswith(f".{name[1]}")
    return None
