"""
Where the keytab of an entry is, and whether it has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from kerberos_sidecar.entries import Entry
from kerberos_sidecar.formats.keytab import KeytabError

# Identity, size in bytes and modification time of files; equal means unchanged.
Stamp = tuple[tuple[str, int, int, int, int], ...]


class Source:
    """
    The keytab of one entry.

    Args:
        folder: Where to look when the entry names none.
        ccaches: Our own files in that folder: no keytabs, whatever they hold.
    """

    def __init__(self, entry: Entry, folder: str, ccaches: Iterable[str]) -> None:
        self._keytab = entry.keytab
        self._folder = folder
        self._ccaches = frozenset(ccaches)

    def __str__(self) -> str:
        return self._keytab or self._folder

    def stamp(self) -> Stamp:
        """
        Return what changes when the keytab does; empty where there is none.

        Symlinks are followed: a Secret is renewed by swapping one, high up on the way.
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
            KeytabError: The folder has none, or several.
        """
        if self._keytab:
            return self._keytab
        try:
            os.listdir(self._folder)
        except PermissionError as error:
            raise KeytabError(
                "keytab_unreadable",
                f"{self._folder} cannot be listed: {error.strerror}",
                "Let the pod's fsGroup make the Secret's folder readable.",
            ) from None
        except OSError:
            pass  # said below
        keytabs = self._candidates()
        match keytabs:
            case [path]:
                return path
            case []:
                raise KeytabError(
                    "keytab_missing",
                    f"there is no keytab in {self._folder}",
                    "Mount the Secret with the keytab there, or set KERBEROS_KEYTAB.",
                )
        names = ", ".join(os.path.basename(path) for path in keytabs[:5])
        raise KeytabError(
            "keytab_ambiguous",
            f"{self._folder} has {len(keytabs)} keytabs: {names}",
            "Name one of them with KERBEROS_KEYTAB.",
        )

    def _candidates(self) -> list[str]:
        """
        Return the files of the folder that begin like a keytab.

        Where none does, all of them: then the error is about what is there. Else krb5.conf and
        the ccache of another sidecar, which changes all the time, do not count.
        """
        names: list[str] = []
        with suppress(OSError):
            names = sorted(name for name in os.listdir(self._folder) if name[0] != ".")
        paths = [os.path.join(self._folder, name) for name in names]
        files = [path for path in paths if path not in self._ccaches and os.path.isfile(path)]
        return list(filter(_begins_like_a_keytab, files)) or files


def _begins_like_a_keytab(path: str) -> bool:
    """
    Look at the first bytes; one that may not be read is taken for a keytab, and named as such.
    """
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"\x05\x02", b"\x05\x01")
    except OSError as error:
        return isinstance(error, PermissionError)
