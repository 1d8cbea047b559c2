"""
Finds the keytab of an entry, and detects changes to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from kerberos_sidecar.entries import Entry
from kerberos_sidecar.formats.keytab import KeytabError

# Path, identity, size in bytes and modification time of files; equal stamps mean unchanged files.
Stamp = tuple[tuple[str, int, int, int, int], ...]


class Source:
    """
    The keytab of one entry.

    Args:
        folder: The folder to search if the entry names no keytab.
        ccaches: The sidecar's own files in that folder, which are never taken for keytabs.
    """

    def __init__(self, entry: Entry, folder: str, ccaches: Iterable[str]) -> None:
        self._keytab = entry.keytab
        self._folder = folder
        self._ccaches = frozenset(ccaches)

    def __str__(self) -> str:
        return self._keytab or self._folder

    def stamp(self) -> Stamp:
        """
        Return a value that changes with the keytab; empty if no keytab exists.

        Symlinks are followed: Kubernetes updates a Secret by swapping one further up the path.
        """
        paths = [self._keytab] if self._keytab else self._candidates()
        stamps = []
        for path in paths:
            with suppress(OSError):
                found = os.stat(path)
                identity = (found.st_dev, found.st_ino)
                stamps.append((path, *identity, found.st_size, found.st_mtime_ns))
        return tuple(stamps)

    def find(self) -> str:
        """
        Return the path of the keytab.

        Raises:
            KeytabError: The folder contains no keytab, or several.
        """
        if self._keytab:
            return self._keytab
        try:
            os.listdir(self._folder)
        except PermissionError as error:
            raise KeytabError(
                "keytab_unreadable",
                f"{self._folder} cannot be listed: {error.strerror}",
                "Make the Secret's folder readable with the pod's fsGroup.",
            ) from None
        except OSError:
            pass  # reported below
        keytabs = self._candidates()
        match keytabs:
            case [path]:
                return path
            case []:
                raise KeytabError(
                    "keytab_missing",
                    f"{self._folder} contains no keytab",
                    "Mount the Secret with the keytab there, or set KERBEROS_KEYTAB.",
                )
        names = ", ".join(os.path.basename(path) for path in keytabs[:5])
        raise KeytabError(
            "keytab_ambiguous",
            f"{self._folder} contains {len(keytabs)} keytabs: {names}",
            "Set KERBEROS_KEYTAB to one of them.",
        )

    def _candidates(self) -> list[str]:
        """
        Return the folder's files that begin like a keytab, or all its files if none does.

        The first bytes exclude krb5.conf, and another sidecar's ccache, which changes often. If no
        file is a keytab, the error is about the files that exist.
        """
        names: list[str] = []
        with suppress(OSError):
            names = sorted(name for name in os.listdir(self._folder) if name[0] != ".")
        paths = [os.path.join(self._folder, name) for name in names]
        files = [path for path in paths if path not in self._ccaches and os.path.isfile(path)]
        return list(filter(_begins_like_a_keytab, files)) or files


def _begins_like_a_keytab(path: str) -> bool:
    """
    Check the first bytes; a file that cannot be read counts as a keytab, so that it is reported.
    """
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"\x05\x02", b"\x05\x01")
    except OSError as error:
        return isinstance(error, PermissionError)
