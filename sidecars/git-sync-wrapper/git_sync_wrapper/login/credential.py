"""
Who logs in where: what git asks for, and what it gets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote, urlsplit

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    The URL that git must log in to, in the parts in which git passes it to helpers.

    Args:
        host: With the port where the URL has one.
        path: Without its leading slash; empty where it does not matter.
    """

    protocol: str
    host: str
    path: str = ""

    @classmethod
    def by_url(cls, url: str) -> Wanted:
        """
        Take a URL apart as git does.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # no server has such a name
            return cls("", url)
        host = parts.netloc.rpartition("@")[2].lower()
        return cls(parts.scheme, host, unquote(parts.path).strip("/"))

    def is_same_server(self, other: Wanted) -> bool:
        """
        Whether credentials for one are credentials for the other.
        """
        return (self.protocol, self.host.lower()) == (other.protocol, other.host.lower())


@dataclass(frozen=True, slots=True)
class Credential:
    """
    Who logs in.

    Args:
        expires_at: Unix time after which it must be requested again; `None`: when it is refused.
        origin: Where it is from, in words, for a person.
    """

    username: str
    password: str = field(repr=False)
    expires_at: float | None = None
    origin: str = field(default="", compare=False)


class Provider(Protocol):
    """
    Knows credentials for some servers; called from several threads.
    """

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return what logs in there, fresh from its source; None where another provider must know.

        Raises:
            SidecarError: It should know, and cannot tell.
            CycleAbandoned: The fence was revoked meanwhile.
        """

    def refused(self, wanted: Wanted) -> None:
        """
        Drop what is kept for this server: it was refused.
        """


class CredentialError(SidecarError):
    """
    A source of credentials does not give what it should.
    """
