"""
Provide an entry in /etc/passwd for our UID: without one, ssh refuses to run.

git-sync's ``--add-user`` writes an entry into the file itself, which needs a writable root.
"""

from __future__ import annotations

import glob
import os
import pwd

from sidecar_runtime.volume.files import write_file

LIBRARY = "libnss_wrapper.so"
LIBRARIES = f"/usr/lib/*/{LIBRARY}"


def user_entry(folder: str, libraries: str = LIBRARIES) -> dict[str, str]:
    """
    Return the variables that give git's children an entry; empty if our UID already has one.

    Args:
        folder: A private folder, for a copy of the file with our entry.
        libraries: A pattern for the path of libnss-wrapper; without it no entry is provided.

    Raises:
        OSError: The copy cannot be written.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        pass
    else:
        return {}
    if not glob.glob(libraries):
        return {}
    path = os.path.join(folder, "passwd")
    if not os.path.exists(path):
        with open("/etc/passwd", "rb") as file:
            entries = file.read()
        home = os.environ.get("HOME", "/tmp")  # noqa: S108 - the image's value
        own = f"git-sync:x:{os.getuid()}:{os.getgid()}::{home}:/usr/sbin/nologin\n"
        write_file(path, entries + own.encode(), 0o600, fsync=False)
    return {"LD_PRELOAD": LIBRARY, "NSS_WRAPPER_PASSWD": path, "NSS_WRAPPER_GROUP": "/etc/group"}
