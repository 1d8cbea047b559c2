"""
One run of a hook that is a web request. Imported only if one is configured: urllib takes 3 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass

from git_sync_wrapper.hooks.hook import HookFailed
from git_sync_wrapper.http.request import send
from sidecar_runtime.fence import CycleAbandoned, Fence


@dataclass(frozen=True, slots=True)
class Webhook:
    """
    A request with the commit's hash in its header ``Gitsync-Hash``.

    Args:
        success_status: The status that counts as success; 0 or less: any status.
    """

    url: str
    method: str
    success_status: int
    timeout_seconds: float
    backoff_seconds: float
    name: str = "webhook"

    def run(self, commit: str, fence: Fence) -> None:
        """
        Send it once.

        Raises:
            HookFailed: The server did not answer, or with another status.
            CycleAbandoned: The fence was revoked.
        """
        if fence.is_revoked:
            raise CycleAbandoned
        try:
            status = send(self.method, self.url, {"Gitsync-Hash": commit}, self.timeout_seconds)
        except (OSError, ValueError) as error:
            raise HookFailed("no answer", str(error)) from None
        if self.success_status > 0 and status != self.success_status:
            raise HookFailed(f"the answer is {status} instead of {self.success_status}")
