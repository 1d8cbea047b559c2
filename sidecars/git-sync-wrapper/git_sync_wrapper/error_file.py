"""
The error-file: the last failure, in git-sync's own format, for programs that watch it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from git_sync_wrapper.engine.engine import GitSyncFailed
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.logs import get_logger
from sidecar_runtime.volume.files import write_file
from sidecar_runtime.volume.trees import FOLDER_MODE

log = get_logger("error_file")


class ErrorFile:
    """
    The file of ``--error-file``; without that flag nothing is written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._may_exist = bool(path)

    def write(self, error: SidecarError, failures: int) -> None:
        """
        Write a failure; an error while writing is only logged.
        """
        if not self._path:
            return
        self._may_exist = True
        content = error.report if isinstance(error, GitSyncFailed) else ""
        if not content:
            facts = {"Msg": error.reason, "Err": error.message, "Args": {"failCount": failures}}
            content = json.dumps(facts)
        try:
            os.makedirs(os.path.dirname(self._path), FOLDER_MODE, exist_ok=True)
            write_file(self._path, content.encode(), 0o644, fsync=False)
        except OSError as problem:
            log.warning("error_file_failed", path=self._path, error=problem.strerror)

    def remove(self) -> None:
        """
        Remove the file after a success.
        """
        if self._may_exist:
            with suppress(OSError):
                os.unlink(self._path)
            self._may_exist = False
