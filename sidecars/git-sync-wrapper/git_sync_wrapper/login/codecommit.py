"""
The provider that signs requests to CodeCommit with the pod's identity; it stores no secret.
"""

from __future__ import annotations

import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING

from git_sync_wrapper.login import sigv4
from git_sync_wrapper.login.credential import Credential, CredentialError, Wanted
from sidecar_runtime.fence import Fence

if TYPE_CHECKING:
    from sidecar_runtime.aws.credentials import AwsConfig, Chain


class CodeCommit:
    """
    Signs for every CodeCommit host.

    Args:
        also: A server to sign for under any name, in the region of the environment.
    """

    def __init__(self, also: Wanted | None) -> None:
        self._also = also
        self._lock = threading.Lock()

    @cached_property
    def _chain(self) -> Chain:
        from sidecar_runtime.aws.credentials import Chain  # noqa: PLC0415 - only for AWS

        return Chain()

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return a signature for this host and path.
        """
        if not self.is_for(wanted):
            return None
        with self._lock:
            credentials, config = self._chain.current(fence)
        region = self._region(wanted, config)
        now = time.time()
        ends = now + sigv4.VALID_SECONDS
        if credentials.expires_at is not None:  # signatures expire with the session
            ends = min(ends, credentials.expires_at)
        return Credential(
            sigv4.username(credentials),
            sigv4.password(credentials, wanted.host, wanted.path, region, now),
            ends,
            credentials.method,
        )

    def refused(self, wanted: Wanted) -> None:
        """
        Request new AWS credentials at the next use.
        """
        if self.is_for(wanted):
            with self._lock:
                self._chain.forget()

    def identity(self, fence: Fence) -> str | None:
        """
        Return the ARN of the identity that signs, from STS; None if STS does not return it.
        """
        with self._lock:
            return self._chain.identity(fence)

    def explain(self, wanted: Wanted, fence: Fence) -> CredentialError | None:
        """
        Return the error and advice for a refused signature; None for other servers.
        """
        if not self.is_for(wanted):
            return None
        with self._lock:
            credentials, config = self._chain.current(fence)
            who = self._chain.identity(fence) or f"the access key {credentials.access_key}"
        account = who.split(":")[4] if who.startswith("arn:") else "ACCOUNT"
        partition = who.split(":")[1] if who.startswith("arn:") else "aws"
        name = wanted.path.rpartition("/")[2]
        arn = f"arn:{partition}:codecommit:{self._region(wanted, config)}:{account}:{name}"
        return CredentialError(
            "access_denied",
            f"CodeCommit refuses {who} for {name}",
            f"Allow codecommit:GitPull on {arn} in the policy of the role (with the repository's "
            "account, if that is another one), and check the node's clock: a signature is valid "
            "for minutes.",
        )

    def is_for(self, wanted: Wanted) -> bool:
        """
        Whether it signs for this server.
        """
        is_codecommit = wanted.protocol == "https" and sigv4.region_of(wanted.host) is not None
        return is_codecommit or (self._also is not None and wanted.is_same_server(self._also))

    @staticmethod
    def _region(wanted: Wanted, config: AwsConfig) -> str:
        region = sigv4.region_of(wanted.host) or config.region
        if region is None:
            raise CredentialError(
                "region_missing", f"no region is known for {wanted.host}", "Set AWS_REGION."
            )
        return region
