"""
The gate before an upload: the same as the daemon's, with the whole release as new.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable

from s3_sync.metrics import SyncMetrics
from s3_sync.publisher.folder_errors import NAMED, FolderError
from s3_sync.settings import Settings
from sidecar_runtime import __version__
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import make_gate


def judge(settings: Settings, revision: str, write: Callable[[str], list[str]]) -> None:
    """
    Let the gate of the settings judge a copy of what would be released, and of nothing else.

    Args:
        write: Writes the files into a folder, and returns their paths.

    Raises:
        FolderError: It refuses; file, line and reason are named.
        Undecided: There is no verdict.
    """
    gate = make_gate(settings, SyncMetrics(__version__, "unknown").gate)
    if gate is None:
        return
    logging.getLogger("gate").setLevel(logging.CRITICAL)  # we tell of it ourselves
    with tempfile.TemporaryDirectory(prefix="s3-sync-gate-") as folder:
        try:
            paths = write(folder)
        except OSError as error:
            raise FolderError(
                "temporary_failed",
                f"no copy for the gate can be made in {folder}: {error.strerror}",
                "It needs room for the whole folder; TMPDIR names another place.",
            ) from error
        refused = gate.judge(revision, folder, paths, Fence())
    if refused is not None:
        texts = [str(finding) for finding in refused.findings[:NAMED]]
        if refused.files_refused > len(texts):
            texts.append(f"{refused.files_refused - len(texts)} more")
        said = f"the gate refuses it: {'; '.join(texts)}"
        raise FolderError("revision_refused", said, "Fix it, and publish again.")
