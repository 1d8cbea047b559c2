"""
One run of a hook that is a command, in the folder of a commit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar_runtime import child
from sidecar_runtime.fence import Fence
from sidecar_runtime.logs import get_logger

SAID_BYTES = 2000

log = get_logger("hooks")


class HookFailed(Exception):
    """
    A hook did not succeed.

    Args:
        why: The cause, in our words.
        said: The output of the hook, or the system's error. Only for the log: it may hold secrets.
    """

    def __init__(self, why: str, said: str = "") -> None:
        super().__init__(f"{why}: {said}" if said else why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Exechook:
    """
    A program that runs in the folder of the commit, with the commit's hash in ``GITSYNC_HASH``.

    Args:
        store: The folder of all commits.
    """

    name: str
    command: str
    timeout_seconds: float
    backoff_seconds: float
    environ: Mapping[str, str]
    store: str

    def run(self, commit: str, fence: Fence) -> None:
        """
        Run it once.

        Raises:
            HookFailed: It cannot be started, fails, or takes too long.
            CycleAbandoned: The fence was revoked.
        """
        environ = {**self.environ, "GITSYNC_HASH": commit}
        command = child.Command([self.command], environ, os.path.join(self.store, commit))
        said = child.Kept(SAID_BYTES)
        try:
            code = child.run(command, fence, self.timeout_seconds, said)
        except child.DeadlinePassed:
            raise HookFailed(f"it did not end within {self.timeout_seconds:g} s") from None
        except OSError as error:
            raise HookFailed(f"it cannot be started: {error.strerror}") from None
        if code != 0:
            raise HookFailed(f"it ended with {child.ending(code)}", str(said))
        log.debug("hook_said", hook=self.name, output=str(said))
