"""
Credentials: the request of git, the answer, and the interface of providers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote, urlsplit

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence

UNKNOWN_IDENTITY = "an unknown identity (STS did not report it)"


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    The URL that git must log in to, in the parts in which git passes it to helpers.

    Args:
        host: Host, and the port if the URL has one.
        path: Without its leading slash; empty if it does not matter.
    """

    protocol: str
    host: str
    path: str = ""

    @classmethod
    def by_url(cls, url: str) -> Wanted:
        """
        Split a URL as git does.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # not a valid server name
            return cls("", url)
        host = parts.netloc.rpartition("@")[2].lower()
        return cls(parts.scheme, host, unquote(parts.path).strip("/"))

    def is_same_server(self, other: Wanted) -> bool:
        """
        Whether both have the same server, and so the same credentials.
        """
        return (self.protocol, self.host.lower()) == (other.protocol, other.host.lower())


@dataclass(frozen=True, slots=True)
class Credential:
    """
    A username and a password.

    Args:
        expires_at: Unix time after which it must be requested again; `None`: when it is refused.
        origin: Its source, as text for people.
    """

    username: str
    password: str = field(repr=False)
    expires_at: float | None = None
    origin: str = field(default="", compare=False)


class Provider(Protocol):
    """
    Provides credentials for some servers; called from several threads.
    """

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return the current credential for a server; None if another provider is responsible.

        Raises:
            SidecarError: This provider is responsible, and failed.
            CycleAbandoned: The fence was revoked meanwhile.
        """

    def refused(self, wanted: Wanted) -> None:
        """
        Drop cached credentials for this server, because it refused them.
        """


class CredentialError(SidecarError):
    """
    A source of credentials failed.
    """
