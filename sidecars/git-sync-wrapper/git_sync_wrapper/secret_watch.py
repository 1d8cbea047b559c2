"""
Watches files with credentials: a change ends the wait after a failure.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.remote_git import COOKIE_FILE
from git_sync_wrapper.settings import Settings
from sidecar_runtime.logs import get_logger

WATCH_SECONDS = 1.0

log = get_logger("secrets")


def secret_files(settings: Settings, options: Options) -> list[str]:
    """
    Return the files that are read again at each login, whether they exist or not.
    """
    files = [settings.username_file, options.password_file, options.github_app_private_key_file]
    files += [given.password_file for given in options.credentials]
    if options.cookie_file:
        files.append(COOKIE_FILE)
    if not options.repo.startswith(("http://", "https://")):
        files += [*options.ssh_key_files, options.ssh_known_hosts_file]
    return [file for file in files if file]


def watch_secrets(
    files: Sequence[str], wake: Callable[[], None], period_seconds: float = WATCH_SECONDS
) -> None:
    """
    Call `wake` from a thread whenever one of the files changes; without files start no thread.
    """
    if files:
        arguments = (files, wake, period_seconds)
        threading.Thread(target=_watch, args=arguments, name="watch", daemon=True).start()


def _watch(files: Sequence[str], wake: Callable[[], None], period_seconds: float) -> None:
    seen = [_stamp(file) for file in files]
    while True:
        time.sleep(period_seconds)
        stamps = [_stamp(file) for file in files]
        if stamps != seen:
            log.info("secret_changed")
            wake()
        seen = stamps


def _stamp(file: str) -> tuple[int, ...]:
    """
    Return values that change when a file is replaced or edited; empty if it does not exist.
    """
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
