"""
Keys and known_hosts for ssh: the user's files, or repaired copies of damaged ones.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from git_sync_wrapper.login.secret import Cleaner, read_file
from git_sync_wrapper.login.secret_repair import Repaired, repair_key, repair_known_hosts
from sidecar_runtime.volume.files import write_file

PINNED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "known_hosts")


class SshFiles:
    """
    The files for ssh; each call reads them again, because Secrets rotate.

    Args:
        folder: A private folder, for copies.
    """

    def __init__(
        self, keys: Sequence[str], known_hosts: str, folder: str, cleaner: Cleaner
    ) -> None:
        self._keys = keys
        self._known_hosts = known_hosts
        self._folder = folder
        self._cleaner = cleaner

    def keys(self) -> list[str]:
        """
        Return the paths of the keys; ssh itself reports a missing key.

        Raises:
            CredentialError: A key exists and cannot be read.
            OSError: Its copy cannot be written.
        """
        setting, is_one = "GITSYNC_SSH_KEY_FILE", len(self._keys) == 1
        return [
            self._usable(
                setting if is_one else f"{setting}, {path}", path, f"key-{number}", repair_key
            )
            for number, path in enumerate(self._keys)
        ]

    def known_hosts(self) -> str:
        """
        Return the path of the user's known_hosts file, or of the built-in file without one.

        Raises:
            CredentialError: The file exists and cannot be read.
            OSError: Its copy cannot be written.
        """
        if not os.path.exists(self._known_hosts):
            return PINNED
        setting = "GITSYNC_SSH_KNOWN_HOSTS_FILE"
        return self._usable(setting, self._known_hosts, "known_hosts", repair_known_hosts)

    def _usable(
        self, setting: str, path: str, name: str, repair: Callable[[bytes], Repaired]
    ) -> str:
        if not os.path.exists(path):
            return path
        raw = read_file(setting, path)
        content = self._cleaner.clean(setting, raw, repair).encode("utf-8", "surrogateescape")
        if content == raw and not (repair is repair_key and _is_too_open(path)):
            return path
        return self._copy(name, content)

    def _copy(self, name: str, content: bytes) -> str:
        path = os.path.join(self._folder, name)
        with suppress(OSError), open(path, "rb") as file:
            if file.read() == content:
                return path
        write_file(path, content, 0o600, fsync=False)
        return path


def _is_too_open(path: str) -> bool:
    """
    Whether ssh would refuse a key because others may read it: it checks only files that we own.
    """
    with suppress(OSError):
        found = os.stat(path)
        return found.st_uid == os.getuid() and bool(stat.S_IMODE(found.st_mode) & 0o077)
    return False
