"""
The providers with stored credentials: pairs from settings, and git-sync's own tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from git_sync_wrapper.login.credential import Credential, CredentialError, Wanted
from git_sync_wrapper.login.secret import Secret
from git_sync_wrapper.login.sigv4 import region_of
from sidecar_runtime.fence import Fence


@dataclass(frozen=True, slots=True)
class Pair:
    """
    A username and a password for one URL; the password is None if the username is a token.
    """

    url: Wanted
    username: Secret
    password: Secret | None


class Given:
    """
    ``--username`` with its password, and ``--credential``.
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._pairs = list(pairs)

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return the pair with the best matching URL; as in git-sync, another path matches as well.
        """
        pair = self._best(wanted)
        if pair is None:
            return None
        username = pair.username.read()
        _check_codecommit(username, wanted)
        if pair.password is None:
            return Credential(username, "", origin=pair.username.setting)
        return Credential(username, pair.password.read(), origin=pair.password.setting)

    def refused(self, wanted: Wanted) -> None:
        """
        Decode secrets that look like base64, or stop decoding them.
        """
        if pair := self._best(wanted):
            pair.username.refused()
            if pair.password:
                pair.password.refused()

    def is_for(self, wanted: Wanted) -> bool:
        """
        Whether there is a pair for this server.
        """
        return self._best(wanted) is not None

    def _best(self, wanted: Wanted) -> Pair | None:
        here = [pair for pair in self._pairs if pair.url.is_same_server(wanted)]
        return max(here, key=lambda pair: _fit(pair.url.path, wanted.path), default=None)


def _fit(given: str, wanted: str) -> int:
    return len(given) if f"{wanted}/".startswith(f"{given}/") else -1


def _check_codecommit(username: str, wanted: Wanted) -> None:
    """
    Refuse a common mistake with CodeCommit: an AWS access key as the username.
    """
    if region_of(wanted.host) and username[:4] in ("AKIA", "ASIA"):
        raise CredentialError(
            "access_key_as_username",
            f"the username for {wanted.host} is an AWS access key",
            "Use IAM's Git credentials for CodeCommit, or unset the username: then the wrapper "
            "signs with IRSA, Pod Identity or AWS_ACCESS_KEY_ID.",
        )


class Stored:
    """
    Credentials that git-sync requests itself and has git store: tokens of a GitHub App.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Credential] = {}

    def store(self, wanted: Wanted, credential: Credential) -> None:
        """
        Keep the newest token for each server.
        """
        self._kept[wanted.protocol, wanted.host] = credential

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return the newest token for this server.
        """
        return self._kept.get((wanted.protocol, wanted.host))

    def refused(self, wanted: Wanted) -> None:
        """
        Drop the token; git-sync requests a new one.
        """
        self._kept.pop((wanted.protocol, wanted.host), None)
