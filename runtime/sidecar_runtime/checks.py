"""
What every ``check`` command prints: a line for each check, and below it what mends it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from typing import Literal

from sidecar_runtime.errors import EXIT_DONE, EXIT_GAVE_UP, SettingsError, SidecarError
from sidecar_runtime.publish import nearest_folder
from sidecar_runtime.target_errors import explained


def say(mark: Literal["ok", "??", "FAIL", ""], name: str, text: str) -> None:
    """
    Print one line.

    Args:
        mark: ``??``: worth a look, and no failure. Empty: the line goes on with the one above.
    """
    sys.stdout.write(f"  {mark:<5} {name:<14} {text}\n")
    sys.stdout.flush()


def fail(name: str, error: SidecarError) -> bool:
    """
    Print what failed and what to do; return False, the result of the check.
    """
    if isinstance(error, SettingsError):
        for problem in error.problems:
            say("FAIL", name, f"{problem.setting} {problem.value!r} {problem.problem}")
        return False
    say("FAIL", name, f"{error.reason}: {error.message}")
    if error.advice:
        say("", "", error.advice)
    return False


def exit_code(results: Iterable[bool]) -> int:
    """
    Return the exit code that the results of all checks make.
    """
    return EXIT_DONE if all(results) else EXIT_GAVE_UP


def try_folder(name: str, path: str) -> bool:
    """
    Print whether a folder can be written, or made; return whether files can have hard links there.

    Nothing is left behind.

    Raises:
        TargetError: Nothing can be written there.
    """
    folder = nearest_folder(path)
    with explained(f"cannot write to {folder}", folder):
        has_links = _has_links(folder)
        free = shutil.disk_usage(folder).free >> 20
    made = "" if folder == path else " (the daemon will make it)"
    say("ok", name, f"{path}{made} is writable as uid {os.getuid()}, {free} MiB free")
    return has_links


def _has_links(folder: str) -> bool:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".check-") as inside:
        os.close(os.open(f"{inside}/file", os.O_CREAT | os.O_WRONLY, 0o600))
        try:
            os.link(f"{inside}/file", f"{inside}/link")
        except OSError:
            return False
    return True
